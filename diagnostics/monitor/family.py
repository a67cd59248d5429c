"""Which processes of a service are its workers, where no agent says so: read from /proc, from outside.

A process that only supervises is no worker: it may hold the listening socket (uvicorn's and gunicorn's parents do), but
its children accept on it. So a worker is a process that holds a listening socket which none of its children holds.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from .absence import why_no_agent
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
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):  # it has ended
        return None
