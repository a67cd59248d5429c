"""What the kernel tells of a process from outside: it answers while the process's loop is stuck or its GIL is held."""

from __future__ import annotations

import os
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["ProcessReading", "alive", "read_process"]

_PAGE_BYTES = resource.getpagesize()
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One look at /proc/<pid>. Bytes, seconds of CPU since the start, counts; None where /proc does not tell.

    state   one letter as in ps: R running, S sleeping, D waiting for a disk, T stopped, Z ended
    """

    pid: int
    rss_bytes: int
    state: str
    threads: int
    fds: int | None
    cpu_seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def alive(pid: int) -> bool:
    """Whether a process with this pid runs; one that has ended and was not yet waited for does not."""
    reading = read_process(pid)
    return reading is not None and reading.state != "Z"


def read_process(pid: int, proc: Path = Path("/proc")) -> ProcessReading | None:
    """Read process `pid`; None if there is none."""
    folder = proc / str(pid)
    try:
        # The name in parentheses may hold spaces and parentheses itself: what counts comes after the last one.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        rss_pages = int((folder / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    try:
        fds = len(os.listdir(folder / "fd"))  # noqa: PTH208  # counting names needs no Path objects
    except OSError:  # another user's process
        fds = None
    return ProcessReading(
        pid=pid,
        rss_bytes=rss_pages * _PAGE_BYTES,
        state=fields[0],
        threads=int(fields[17]),
        fds=fds,
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND,
    )
