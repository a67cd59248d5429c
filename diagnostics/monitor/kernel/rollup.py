"""A process's PSS and private bytes, from /proc/<pid>/smaps_rollup.

RSS counts a page that a preloaded parent and four workers share five times, and does not change when one of them writes to
it and gets a copy, although the machine then has one page less. PSS divides a shared page among the processes that map it,
so the PSS of all processes of a service add up to the memory that the service takes.

The kernel walks the process's page tables for it: 3 ms at 256 MiB, 12 at 1 GiB, 42 at 4 GiB, and for that time the
process cannot map or unmap memory. So all processes together are read no more often than their cost allows.

While an agent's forked reading runs, it shares all pages of the service, which has few of its own then, and half of its PSS.
What is read then says nothing of the service: the reading before it stays.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .family import has_reading
from .proc_file import read_whole
from .smaps import total

__all__ = ["LEAST_SECONDS", "Rollup", "Rollups", "read_rollup", "why_unreadable"]

# A trend over two minutes has twelve blocks, and each needs three readings.
LEAST_SECONDS = 2.5
# A reading is reused for this many times the CPU time that it took: at most 1 % is spent reading.
_SHARED_COSTS = 100.0


@dataclass(frozen=True, slots=True)
class Rollup:
    """Bytes. `private`: pages that no other process maps; `pss`: those and the process's share of the others."""

    rss: int
    pss: int
    private: int

    @property
    def shared(self) -> int:
        """Bytes of resident pages that other processes map, too."""
        return max(0, self.rss - self.private)


def read_rollup(pid: int, proc: Path = Path("/proc")) -> Rollup | None:
    """Read process `pid`; None where it has ended, is another user's, or the kernel is older than 4.14."""
    try:
        text = read_whole(f"{proc}/{pid}/smaps_rollup")
    except OSError:
        return None
    rss, pss = total(text, b"Rss"), total(text, b"Pss")
    private = total(text, b"Private_Clean", b"Private_Dirty")
    return None if rss is None or pss is None or private is None else Rollup(rss, pss, private)


def why_unreadable(pid: int, proc: Path = Path("/proc")) -> str:
    """A sentence why smaps of process `pid` cannot be read."""
    try:
        # Permission is checked on open; a read might wait for the process's memory map lock.
        os.close(os.open(proc / str(pid) / "smaps", os.O_RDONLY | os.O_NONBLOCK))
    except FileNotFoundError:
        return "this kernel has no smaps" if (proc / str(pid) / "stat").exists() else "it has ended"
    except OSError as error:
        try:
            owner = os.stat(proc / str(pid)).st_uid  # noqa: PTH116  # one call, no Path
        except OSError:
            return "it has ended"
        return (
            f"the kernel does not let uid {os.geteuid()} read the memory map of a process of uid {owner} "
            f"({error.strerror}): run the monitor as that user, or with CAP_SYS_PTRACE"
        )
    return "the kernel did not answer in time"


class Rollups:
    """Reads all processes of a service together, each in a thread, and reuses the result according to its cost.

    least      minimum of seconds between two readings
    patience   seconds to wait for the kernel: a page fault on a stuck file system locks the memory map and blocks readers
    """

    def __init__(self, least: float = LEAST_SECONDS, proc: Path = Path("/proc"), patience: float = 0.5) -> None:
        self._least = least
        self._proc = proc
        self._patience = patience
        self._known: dict[int, _Known] = {}
        self._due = 0.0

    async def read(self, pids: Collection[int]) -> tuple[dict[int, Rollup | None], bool]:
        """(pid -> last reading, whether all were read just now). A new process is read at once.

        None for a process that cannot be read, or was not in time.
        """
        due = time.monotonic() >= self._due
        self._known = {pid: self._known.get(pid) or _Known() for pid in pids}
        await asyncio.gather(*(self._read(pid, known) for pid, known in self._known.items() if due or not known.asked))
        if due:
            costs = sum(known.cost for known in self._known.values())
            self._due = time.monotonic() + max(self._least, _SHARED_COSTS * costs)
        return {pid: known.last for pid, known in self._known.items()}, due

    async def _read(self, pid: int, known: _Known) -> None:
        known.asked = True
        if known.task is None:
            known.task = asyncio.create_task(asyncio.to_thread(_timed, pid, self._proc))
        await asyncio.wait({known.task}, timeout=self._patience)
        if known.task.done():
            (rollup, forked, known.cost), known.task = known.task.result(), None
            if not forked:
                known.last = rollup
        else:
            known.last = None


@dataclass
class _Known:
    last: Rollup | None = None
    asked: bool = False
    cost: float = 0.0
    task: asyncio.Task[tuple[Rollup | None, bool, float]] | None = None


def _timed(pid: int, proc: Path) -> tuple[Rollup | None, bool, float]:
    """What is read now, whether a forked reading of ours shared the pages meanwhile, and the CPU seconds that it took."""
    began = time.thread_time()
    before = has_reading(pid, proc)
    rollup = read_rollup(pid, proc)
    return rollup, before or has_reading(pid, proc), time.thread_time() - began
