"""Reads a process's memory cgroup: usage, limit, charges beside processes' own memory, pressure, and OOM kills. Versions 1
and 2.

The file names and their meaning are those of the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
Any level above the process may have a limit; the effective one is that with the fewest bytes left.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .hierarchy import USAGE_FILE, Place, find_cgroup, membership, upwards
from .proc_file import read_whole

__all__ = ["CgroupReading", "Cgroups", "Level", "levels_of", "oom_kills", "read_cgroup", "why_no_cgroup"]

# Version 1 writes "no limit" as the largest multiple of the page size below 2^63.
_NO_LIMIT = 1 << 62
_SOME_AVG10 = re.compile(rb"^some avg10=([\d.]+)", re.MULTILINE)
# Seconds for which a cgroup is not searched for again while its process stays in it: somebody may mount over it.
_KNOWN_SECONDS = 30.0
# Seconds for which one reading is that of all processes in its cgroup: the recorder asks for each worker and for the whole.
_SHARED_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CgroupReading:
    """One reading. Bytes; None where this kernel or container does not report a figure.

    folder          the folder of the process's own cgroup
    version         1 or 2
    usage_bytes     charged to the level that has the tightest limit (to the process's own where there is no limit)
    limit_bytes     that limit, None where there is none
    inactive_bytes  of the usage, page cache that the kernel reclaims before it kills a process
    cache_bytes     own level: pages of files that no process has mapped; files in a tmpfs are among them
    tmpfs_bytes     own level: pages of tmpfs files and shared memory, mapped or not; they cannot be reclaimed
    kernel_bytes    own level: kernel stacks, page tables, directory entries, socket structures
    socket_bytes    own level: network buffers; version 1 counts them only where they are limited
    psi_some_avg10  per cent of the last ten seconds in which some task waited for memory
    psi_scope       the tasks counted there: "cgroup", or "system" where only the whole machine's are
    oom_kills       processes of this cgroup and those below it that the OOM killer has killed since its creation
    """

    folder: Path
    version: int
    usage_bytes: int | None
    limit_bytes: int | None
    inactive_bytes: int | None
    cache_bytes: int | None
    tmpfs_bytes: int | None
    kernel_bytes: int | None
    socket_bytes: int | None
    psi_some_avg10: float | None
    psi_scope: str | None
    oom_kills: int | None

    @property
    def working_bytes(self) -> int | None:
        """The working set as Kubernetes defines it: usage without reclaimable page cache. None where usage is unknown."""
        if self.usage_bytes is None:
            return None
        return max(0, self.usage_bytes - (self.inactive_bytes or 0))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "working_bytes": self.working_bytes}


@dataclass(frozen=True, slots=True)
class Level:
    """One cgroup of the chain from the process's own up to the mount."""

    usage: int | None
    limit: int | None
    stat: Mapping[str, int]
    inactive: int | None

    @property
    def room(self) -> int:
        """Bytes left before the OOM killer, reclaimable page cache included; only for a level with a limit."""
        return (self.limit or 0) - (self.usage or 0) + min(self.usage or 0, self.inactive or 0)


def read_cgroup(pid: int, root: Path = Path("/")) -> CgroupReading | None:
    """Read the memory cgroup of process `pid`; None where `why_no_cgroup` says why. `root`: the folder that has `proc`."""
    place = find_cgroup(pid, root)
    return None if isinstance(place, str) else _read(place, root)


class Cgroups:
    """Reads the memory cgroups of processes again and again.

    Where a process's cgroup is mounted is searched for once, and again when the process has been moved, when there is nothing
    to be read any more, and every `_KNOWN_SECONDS`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._known: dict[int, _Known] = {}
        self._shared: dict[Path, tuple[float, CgroupReading]] = {}

    def read(self, pid: int) -> CgroupReading | None:
        """As `read_cgroup`; several processes of one cgroup share a reading that is not older than a tenth of a second."""
        now = time.monotonic()
        try:
            told = membership(self._root / "proc" / str(pid))
        except OSError:  # it has ended
            self._known.pop(pid, None)
            return None
        known = self._known.get(pid)
        if known is not None and known.membership == told and now < known.good_until and _is_there(known.place):
            return self._read(known.place, now)
        self._known = {other: each for other, each in self._known.items() if other != pid and now < each.good_until}
        place = find_cgroup(pid, self._root)
        if isinstance(place, str):
            return None
        self._known[pid] = _Known(told, place, now + _KNOWN_SECONDS)
        return self._read(place, now)

    def _read(self, place: Place, now: float) -> CgroupReading:
        read, reading = self._shared.get(place.folder, (-_SHARED_SECONDS, None))
        if reading is None or now - read >= _SHARED_SECONDS:
            reading = _read(place, self._root)
            self._shared = {folder: each for folder, each in self._shared.items() if now - each[0] < _SHARED_SECONDS}
            self._shared[place.folder] = now, reading
        return reading


@dataclass(frozen=True, slots=True)
class _Known:
    """Where the cgroup of a process is. `membership`: what `/proc/PID/cgroup` had when it was found."""

    membership: bytes
    place: Place
    good_until: float


def _is_there(place: Place) -> bool:
    """Whether the folder is that of a cgroup still: nothing was mounted over it, and its controller is enabled."""
    return os.access(place.folder / _NAMES[place.version].usage, os.R_OK)


def _read(place: Place, root: Path) -> CgroupReading:
    folder, version = place.folder, place.version
    first, *above = upwards(place)
    # Of the levels above only those matter that have a limit, and only there the kernel has to add its counts up.
    levels = [_level(first, version), *(_level(each, version, only_limited=True) for each in above)]
    own = levels[0]
    limited = [level for level in levels if level.usage is not None and level.limit is not None]
    tightest = min(limited, key=lambda level: level.room, default=own)
    pressure, scope = _pressure(folder / "memory.pressure"), "cgroup"
    if pressure is None:
        pressure, scope = _pressure(root / "proc" / "pressure" / "memory"), "system"
    names = _NAMES[version]
    cached, mapped = own.stat.get(names.cache), own.stat.get(names.mapped)
    return CgroupReading(
        folder=folder,
        version=version,
        usage_bytes=tightest.usage,
        limit_bytes=tightest.limit,
        inactive_bytes=tightest.inactive,
        cache_bytes=None if cached is None or mapped is None else max(0, cached - mapped),
        tmpfs_bytes=own.stat.get(names.tmpfs),
        kernel_bytes=own.stat.get("kernel") if version == 2 else _number(folder / "memory.kmem.usage_in_bytes"),
        # Version 1 has 0 while it does not count.
        socket_bytes=own.stat.get("sock")
        if version == 2
        else _number(folder / "memory.kmem.tcp.usage_in_bytes") or None,
        psi_some_avg10=pressure,
        psi_scope=None if pressure is None else scope,
        oom_kills=oom_kills(folder),
    )


def why_no_cgroup(pid: int, root: Path = Path("/")) -> str | None:
    """A sentence why the memory cgroup of process `pid` is unknown; None where it is known."""
    place = find_cgroup(pid, root)
    return place if isinstance(place, str) else None


def levels_of(pid: int, root: Path = Path("/")) -> tuple[int, list[Level]] | None:
    """The version, and the levels from the process's own upwards; None where they cannot be read."""
    place = find_cgroup(pid, root)
    if isinstance(place, str):
        return None
    return place.version, [_level(above, place.version) for above in upwards(place)]


def oom_kills(folder: Path) -> int | None:
    """How many processes of the cgroup at `folder` the OOM killer has killed; None where the kernel does not count them."""
    for name in ("memory.events", "memory.oom_control"):
        count = _table(folder / name).get("oom_kill")
        if count is not None:
            return count
    return None


@dataclass(frozen=True, slots=True)
class _Names:
    """The names in one version: two files, then entries of memory.stat that include the levels below."""

    usage: str
    limit: str
    inactive: str
    cache: str
    mapped: str
    tmpfs: str


_NAMES = {
    1: _Names(
        USAGE_FILE[1], "memory.limit_in_bytes",
        "total_inactive_file", "total_cache", "total_mapped_file", "total_shmem",
    ),
    2: _Names(USAGE_FILE[2], "memory.max", "inactive_file", "file", "file_mapped", "shmem"),
}  # fmt: skip


def _level(folder: Path, version: int, *, only_limited: bool = False) -> Level:
    """`only_limited`: of a level without a limit nothing is read."""
    names = _NAMES[version]
    limit = _number(folder / names.limit)  # version 2 has "max" where there is no limit
    limit = None if limit is None or limit >= _NO_LIMIT else limit
    if limit is None and only_limited:
        return _UNLIMITED
    stat = _table(folder / "memory.stat")
    return Level(
        usage=_number(folder / names.usage),
        limit=limit,
        stat=stat,
        inactive=stat.get(names.inactive),
    )


_UNLIMITED = Level(usage=None, limit=None, stat={}, inactive=None)


def _number(path: Path) -> int | None:
    try:
        return int(read_whole(str(path)))
    except (OSError, ValueError):
        return None


def _table(path: Path) -> dict[str, int]:
    """A file of `key number` lines; empty where it does not exist."""
    try:
        rows = [line.split() for line in read_whole(str(path)).decode(errors="replace").splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _pressure(path: Path) -> float | None:
    try:
        match = _SOME_AVG10.search(read_whole(str(path)))
    except OSError:
        return None
    return float(match[1]) if match else None
