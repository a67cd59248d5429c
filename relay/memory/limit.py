"""How much of its memory limit this process uses: what the kernel would kill it for.

The limit is the smallest of the cgroup's (v2 `memory.max` of the group itself and the groups above it that are visible here;
v1 `memory.limit_in_bytes`) and the one that is set. A cgroup's use is without its inactive file pages, as the kernel reclaims
these first: what Kubernetes calls the working set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["memory_share"]

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
# What cgroup v1 says where there is no limit, and above: no machine has it.
_NO_LIMIT: Final = 1 << 60


def memory_share(limit_bytes: int, root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Callable[[], float | None]:
    """A function that reads the share of the limit in use now; None where there is no limit.

    limit_bytes   a limit for this process's resident memory beside the cgroup's; 0 for none
    """
    groups = [group for group in _groups(root, membership) if _limit(group) is not None]

    def read() -> float | None:
        shares = [share for group in groups if (share := _share(group)) is not None]
        if limit_bytes:
            shares.append(_resident_bytes() / limit_bytes)
        return max(shares, default=None)

    return read


def _groups(root: Path, membership: Path) -> list[Path]:
    """This process's memory cgroups, from its own upwards."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        # In a container the path may be one of the host's, which is not visible here: the top is then the container's own.
        own = top / path.lstrip("/")
        groups += [own, *own.parents[: len(own.parts) - len(top.parts)]]
    return groups


def _limit(group: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _text(group / name)
        if text and text != "max" and int(text) < _NO_LIMIT:
            return int(text)
    return None


def _share(group: Path) -> float | None:
    limit = _limit(group)
    used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    inactive = 0
    for line in (_text(group / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            inactive = int(value)
    return max(0, int(used) - inactive) / max(limit, 1)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None  # not this version of cgroups, or not visible from here


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
