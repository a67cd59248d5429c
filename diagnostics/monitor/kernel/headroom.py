"""How much memory a process may still take before something is killed: the cgroup's limit, or the machine's memory.

Both versions of cgroups are read, and every group above the process's own, since any of them may hold the limit. Pages
that only cache files are not counted as used: the kernel gives them up before it kills (as Kubernetes' working set does).
Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/memory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Headroom", "read_headroom"]


@dataclass(frozen=True, slots=True)
class Headroom:
    """Bytes that are left, and what limits them: "cgroup v2", "cgroup v1" or "MemAvailable"."""

    free_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    limit: str
    usage: str
    cache: str  # the line of memory.stat that counts pages which are given up first


_V1 = _Version("cgroup v1", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Version("cgroup v2", "memory.max", "memory.current", "inactive_file")

# Version 1 says "no limit" with the largest multiple of a page below 2**63.
_NO_LIMIT = 1 << 60


def read_headroom(pid: int, root: Path = Path("/")) -> Headroom | None:
    """The least of all limits on process `pid`; None where nothing can be read. `root` holds `proc` and `sys`."""
    found = list(_cgroups(pid, root))
    available = _mem_available(root)
    if available is not None:
        found.append(Headroom(available, "MemAvailable"))
    return min(found, key=lambda headroom: headroom.free_bytes, default=None)


def _cgroups(pid: int, root: Path) -> Iterator[Headroom]:
    try:
        lines = (root / "proc" / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            yield from _groups(root / "sys/fs/cgroup/memory", path, _V1)
        elif not controllers:
            # Beside version 1 (a "hybrid" machine) the second version has its own mount and no memory controller.
            yield from _groups(root / "sys/fs/cgroup", path, _V2)


def _groups(mount: Path, path: str, version: _Version) -> Iterator[Headroom]:
    """The group at `path` and all above it. In a container the path may be the host's: then only the mount itself is there."""
    own = PurePosixPath(path.lstrip("/"))
    if ".." in own.parts:  # a group outside of this namespace
        own = PurePosixPath()
    for group in (own, *own.parents):
        free = _free_bytes(mount / group, version)
        if free is not None:
            yield Headroom(free, version.name)


def _free_bytes(folder: Path, version: _Version) -> int | None:
    try:
        limit_text = (folder / version.limit).read_text().strip()
        usage = int((folder / version.usage).read_text())
        limit = _NO_LIMIT if limit_text == "max" else int(limit_text)
    except (OSError, ValueError):
        return None
    if limit >= _NO_LIMIT:
        return None
    return max(0, limit - usage + min(usage, _cache_bytes(folder, version)))


def _cache_bytes(folder: Path, version: _Version) -> int:
    try:
        rows = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
        return int(rows.get(version.cache, 0))
    except (OSError, ValueError):
        return 0


def _mem_available(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None
