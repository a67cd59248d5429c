"""Which processes of a service are its workers, where no agent says so: read from /proc, from outside.

A process that only supervises is no worker: it may hold the listening socket (uvicorn's and gunicorn's parents do), but
its children accept on it. So a worker is a process that holds a listening socket which none of its children holds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from .sockets import Sockets

__all__ = ["Family", "why_no_agent"]


class Family:
    """Parents and children as they are now."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._children: dict[int, list[int]] = defaultdict(list)
        for entry in proc.iterdir():
            if entry.name.isdecimal() and (parent := _parent(entry)):
                self._children[parent].append(int(entry.name))

    def of(self, root: int) -> list[int]:
        """`root` and all its descendants, parents first."""
        found, left = [], [root]
        while left:
            pid = left.pop(0)
            found.append(pid)
            left += sorted(self._children.get(pid, ()))
        return found

    def servers(self, root: int, sockets: Sockets) -> list[int]:
        """Those of the family that serve, `root` alone where none does (it may be about to)."""
        holding = {pid: sockets.listeners(pid) for pid in self.of(root)}
        serving = [
            pid
            for pid, listeners in holding.items()
            if listeners and not any(listeners & holding[child] for child in self._children.get(pid, ()))
        ]
        return serving or [root]


def _parent(folder: Path) -> int | None:
    try:
        return int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):  # it has ended
        return None


def why_no_agent(pid: int, proc: Path = Path("/proc")) -> str:
    """Why the start-up hook gave process `pid` no agent, as far as its command line tells; for people to read."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    program = words[0].rpartition("/")[2] if words else ""
    if not re.match(r"python|pypy", program):
        return (
            f"this process has no agent: {program or 'its program'} is not started as Python; it is read from outside"
        )
    for word in words[1:]:
        if not word.startswith("-") or word in ("-", "-c", "-m"):
            break
        flag = re.match(r"-[bBdhiOPqRsuvx]*([IES])", word)
        if flag:
            return (
                f"this process has no agent: Python was started with -{flag[1]}, which ignores the start-up hook; "
                "it is read from outside"
            )
    return "this process has no agent (it has not served yet); it is read from outside"
