"""The share of one core that a service can get: its own use, the machine's idle cores, and the rest of its cgroup's quota.

CPython runs on one core, however many the machine has. Where other processes keep all cores busy, the scheduler gives a
process its fair share of them; where a cgroup has a CPU quota, the service shares that with the cgroup's other processes.
Sources: proc(5) for /proc/stat; https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max, cpu.stat) and
https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .hierarchy import find_cgroup, upwards

__all__ = ["WHOLE_CORE", "CoreLeft", "CoresMark", "mark_cores", "share_left"]


class CoreLeft(NamedTuple):
    """The shares of one core that a service could have used: by its cgroup's quota, and by the machine's idle cores.

    A quota is a fixed limit; the use by other processes may change within a second.
    """

    quota: float = 1.0
    machine: float = 1.0


# Where neither limit is known.
WHOLE_CORE = CoreLeft()


@dataclass(frozen=True, slots=True)
class CoresMark:
    """One reading; None for unknown figures.

    idle_seconds   of all cores together, since boot
    running        threads that run or wait for a core
    cores          of the machine
    quota_cores    the smallest quota of the process's cgroups; used_seconds: CPU time of that cgroup since its creation
    """

    idle_seconds: float | None
    running: int | None
    cores: int
    quota_cores: float | None = None
    used_seconds: float | None = None


def mark_cores(pid: int, root: Path = Path("/")) -> CoresMark:
    idle, running = _machine(root / "proc")
    quota = min(_quotas(pid, root), default=None)
    return CoresMark(idle, running, os.cpu_count() or 1, *(quota or ()))


def share_left(first: CoresMark, second: CoresMark, seconds: float, own_share: float) -> CoreLeft:
    """The share of a core for a service that used `own_share` of one between two readings, `seconds` apart."""
    quota = machine = 1.0
    if first.idle_seconds is not None and second.idle_seconds is not None:
        idle = max(0.0, second.idle_seconds - first.idle_seconds) / seconds
        fair = second.cores / max(1, second.running or 1)
        machine = min(machine, max(own_share + idle, fair))
    if second.quota_cores is not None and first.used_seconds is not None and second.used_seconds is not None:
        used = max(0.0, second.used_seconds - first.used_seconds) / seconds
        quota = min(quota, max(own_share, own_share + second.quota_cores - used))
    return CoreLeft(round(quota, 3), round(machine, 3))


def _machine(proc: Path) -> tuple[float | None, int | None]:
    idle, running = None, None
    try:
        for line in (proc / "stat").read_text(encoding="utf-8").splitlines():
            name, *words = line.split()
            if name == "cpu":  # user nice system idle iowait ...: a core in iowait is free, too
                idle = (int(words[3]) + int(words[4])) / os.sysconf("SC_CLK_TCK")
            elif name == "procs_running":
                running = int(words[0])
    except (OSError, ValueError, IndexError):
        return idle, running
    return idle, running


def _quotas(pid: int, root: Path) -> list[tuple[float, float]]:
    """(quota in cores, CPU seconds used) of the process's cgroup and of all above it that have a quota; empty where they cannot
    be read: this monitor's own quota is not the service's."""
    place = find_cgroup(pid, root, "cpu")
    if isinstance(place, str):
        return []
    read = _quota_v1 if place.version == 1 else _quota_v2
    return [quota for folder in upwards(place) if (quota := read(folder)) is not None]


def _quota_v2(folder: Path) -> tuple[float, float] | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        used = next(
            line
            for line in (folder / "cpu.stat").read_text(encoding="utf-8").splitlines()
            if line.startswith("usage_usec ")
        )
        return None if quota == "max" else (int(quota) / int(period), int(used.split()[1]) / 1e6)
    except (OSError, ValueError, StopIteration):
        return None


def _quota_v1(folder: Path) -> tuple[float, float] | None:
    try:
        quota, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
        return (
            None if quota < 0 else (quota / period, int((folder / "cpuacct.usage").read_text(encoding="utf-8")) / 1e9)
        )
    except (OSError, ValueError):
        return None
