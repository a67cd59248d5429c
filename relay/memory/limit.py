"""Which share of its memory limit this process uses; at the limit the kernel would kill it.

The limits are those of the process's cgroup and the visible groups above it (v2 `memory.max`, v1 `memory.limit_in_bytes`), and
one that is set; the largest share counts. A cgroup's use is without its inactive file pages, which the kernel reclaims first:
what Kubernetes calls the working set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["memory_share"]

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
# From this size on a cgroup has no limit: v1 writes a huge number for none.
_NO_LIMIT: Final = 1 << 60


def memory_share(limit_bytes: int, root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Callable[[], float | None]:
    """Returns a function that reads the share of the limit in use now: 1.0 is all of it; None where there is no limit.

    limit_bytes   a limit of this process's resident memory, in addition to the cgroup's; 0 for none
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
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        # In a container the path may be the host's, which is not visible here: `top` is then the container's own group.
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
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None  # the file of another cgroup version, or not visible from here


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
