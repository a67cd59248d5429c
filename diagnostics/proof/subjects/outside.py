"""Readings of a service without an agent, because it is no Python process: of it and its children from /proc.

Then the only figure is RSS, which includes freed memory that the allocator keeps: growth shows later, and `remains` may be
the allocator's. `Reading.in_use_bytes` is RSS for such a service, and every report says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...analysis.growth import Reading
from ...monitor.kernel.process import read_process
from .processes import descendants

__all__ = ["family", "is_python", "read_from_outside"]


def family(pids: Iterable[int]) -> set[int]:
    """These processes and all their descendants."""
    processes: set[int] = set()
    for pid in pids:
        processes |= {pid, *descendants(pid)}
    return processes


def is_python(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether the process runs a Python interpreter, so that an agent may still start in it."""
    try:
        program = (proc / str(pid) / "exe").readlink().name
        maps = (proc / str(pid) / "maps").read_text(errors="replace")
    except OSError:  # it has just ended, or is another user's
        return False
    return program.startswith(("python", "pypy")) or "libpython" in maps


def read_from_outside(pids: Iterable[int], moment: float) -> Reading | None:
    """The sum over these processes and their descendants at `moment` (monotonic seconds); None where all have ended."""
    readings = [reading for pid in family(pids) if (reading := read_process(pid)) is not None]
    if not readings:
        return None
    rss = sum(reading.rss_bytes for reading in readings)
    return Reading(moment, rss, rss, None, sum(reading.fds or 0 for reading in readings))
