"""Parents and children of processes, and the listening sockets that each serves, from /proc.

A process that only supervises is no worker: it may hold the listening socket (uvicorn's and gunicorn's parents do), but
its children accept on it. So a worker is a process that holds a listening socket which none of its children holds.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ...protocol import READING_NAME
from .absence import why_no_agent
from .proc_file import read_whole
from .sockets import Sockets

__all__ = ["Family", "has_reading", "is_reading", "program_of", "watched_listeners", "why_no_agent"]


class Family:
    """Parents and children at one moment: an object caches what it has read, and must not be kept."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._listed: dict[int, list[int]] = {}

    def of(self, root: int) -> list[int]:
        """`root` and all its descendants, parents first."""
        pids, left = [], [root]
        while left:
            pid = left.pop(0)
            if pid not in pids:  # a child may get another parent while this reads
                pids.append(pid)
                left += self.children(pid)
        return pids

    def children(self, pid: int) -> list[int]:
        """The child processes of `pid`, by pid."""
        if pid not in self._listed:
            listed = self._listed_by_kernel(pid)
            self._listed[pid] = sorted(set(self._all.get(pid, ()) if listed is None else listed))
        return self._listed[pid]

    def above(self, pid: int) -> Iterator[int]:
        """The parent of `pid`, its parent, and so on, without process 1."""
        seen = {pid}
        while (parent := _parent(f"{self._proc}/{pid}")) and parent > 1 and parent not in seen:
            seen.add(parent)
            yield parent
            pid = parent

    def servers(self, root: int, sockets: Sockets) -> list[int]:
        """The processes of the family that serve; `root` alone where none does (it may still be starting)."""
        holding = {pid: sockets.listeners(pid) for pid in self.of(root)}
        serving = [
            pid
            for pid, listeners in holding.items()
            if listeners and not any(listeners & holding.get(child, set()) for child in self.children(pid))
        ]
        return serving or [root]

    def _listed_by_kernel(self, pid: int) -> list[int] | None:
        """From /proc/PID/task/TID/children; None where the kernel has no such files (CONFIG_PROC_CHILDREN)."""
        children: list[int] = []
        lists = 0
        threads = f"{self._proc}/{pid}/task"
        try:
            names = os.listdir(threads)  # noqa: PTH208  # several times a second: no Path for each thread
        except OSError:  # it has ended
            return None
        for name in names:
            try:
                children += map(int, read_whole(f"{threads}/{name}/children").split())
                lists += 1
            except (OSError, ValueError):  # the thread has ended, or there is no such file
                continue
        return children if lists else None

    @cached_property
    def _all(self) -> dict[int, list[int]]:
        """All processes of the machine by their parents."""
        children: dict[int, list[int]] = defaultdict(list)
        for entry in self._proc.iterdir():
            if entry.name.isdecimal() and (parent := _parent(str(entry))):
                children[parent].append(int(entry.name))
        return children


def _parent(folder: str) -> int | None:
    try:
        return int(read_whole(f"{folder}/stat").rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):  # it has ended
        return None


def watched_listeners(pid: int, sockets: Sockets, proc: Path = Path("/proc")) -> set[int]:
    """Inodes of the listening sockets that an epoll instance of process `pid` watches, on which it accepts itself.

    From the lines `tfd:  7 events: 19 ...` of the instance's fdinfo (proc(5)). A server that blocks in accept, select or poll
    has none.
    """
    inodes: set[int] = set()
    listeners = sockets.listeners(pid)
    try:
        descriptors = list((proc / str(pid) / "fd").iterdir()) if listeners else []
    except OSError:  # it has ended, or is another user's
        return inodes
    for descriptor in descriptors:
        try:
            if str(descriptor.readlink()) != "anon_inode:[eventpoll]":
                continue
            lines = (proc / str(pid) / "fdinfo" / descriptor.name).read_text(encoding="utf-8").splitlines()
        except OSError:  # closed since
            continue
        watched = (line.split()[1] for line in lines if line.startswith("tfd:"))
        inodes |= {inode for each in watched if (inode := sockets.inode(pid, int(each))) in listeners}
    return inodes


def is_reading(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether this is a forked reading of an agent, by the name that it has given itself."""
    try:
        return read_whole(f"{proc}/{pid}/comm").rstrip(b"\n") == READING_NAME.encode()
    except OSError:
        return False


def has_reading(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether an agent's forked reading of process `pid` runs now."""
    return any(is_reading(child, proc) for child in Family(proc).children(pid))


def program_of(pid: int, proc: Path = Path("/proc")) -> str:
    """The name of the program that `pid` runs, without arguments, which may be secrets. Empty where it has ended."""
    for name, end in (("cmdline", "\0"), ("comm", "\n")):
        try:
            words = read_whole(f"{proc}/{pid}/{name}").decode(errors="replace").split(end)
        except OSError:
            continue
        # A process that renames itself writes a sentence over its arguments: "nginx: worker process".
        if words[0].strip():
            return words[0].split()[0].rpartition("/")[2].strip("[]:")
    return ""
