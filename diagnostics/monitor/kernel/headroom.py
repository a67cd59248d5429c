"""How many bytes a process may still allocate before the OOM killer acts: by its cgroup's limit, or the machine's memory.

Both versions of cgroups are read, and every level above the process's own, since any of them may have the limit.
Reclaimable page cache is not counted as used, as in Kubernetes' working set. A cgroup that cannot be read is left out: this
monitor's own limit is not the service's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .cgroup import levels_of

__all__ = ["Headroom", "read_headroom"]


@dataclass(frozen=True, slots=True)
class Headroom:
    """Bytes left, and the source of the limit: "cgroup v2", "cgroup v1" or "MemAvailable"."""

    free_bytes: int
    source: str


def read_headroom(pid: int, root: Path = Path("/")) -> Headroom | None:
    """The least headroom of process `pid`; None where nothing can be read. `root`: the folder that has `proc`."""
    version, levels = levels_of(pid, root) or (0, [])
    limited = [level for level in levels if level.usage is not None and level.limit is not None]
    headrooms = [Headroom(max(0, level.room), f"cgroup v{version}") for level in limited]
    available = _mem_available(root)
    if available is not None:
        headrooms.append(Headroom(available, "MemAvailable"))
    return min(headrooms, key=lambda headroom: headroom.free_bytes, default=None)


def _mem_available(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None
