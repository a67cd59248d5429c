"""Headroom, read from trees recorded in containers of both cgroup versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diagnostics.monitor.kernel.headroom import Headroom, read_headroom

MIB = 1024**2
MEMINFO = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:   16000000 kB\n"
STAT_V2 = "anon 104857600\nfile 52428800\ninactive_anon 0\ninactive_file 41943040\nactive_file 10485760\n"
STAT_V1 = "cache 52428800\ninactive_file 1\ntotal_inactive_file 41943040\ntotal_active_file 10485760\n"
UNLIMITED_V1 = "9223372036854771712\n"


def mounts(kind: str, shown: str = "/") -> str:
    point = "/sys/fs/cgroup" if kind == "cgroup2" else "/sys/fs/cgroup/memory"
    return f"29 22 0:26 {shown} {point} rw,relatime - {kind} {kind} rw,memory\n"


# What `cat /proc/self/cgroup` and the files below /sys/fs/cgroup said; path -> content.
V2_POD = {
    "proc/self/mountinfo": mounts("cgroup2"),
    "proc/7/cgroup": "0::/kubepods.slice/pod1/app\n",
    "sys/fs/cgroup/kubepods.slice/pod1/app/memory.max": "max\n",
    "sys/fs/cgroup/kubepods.slice/pod1/app/memory.current": "157286400\n",
    "sys/fs/cgroup/kubepods.slice/pod1/app/memory.stat": STAT_V2,
    "sys/fs/cgroup/kubepods.slice/pod1/memory.max": "268435456\n",
    "sys/fs/cgroup/kubepods.slice/pod1/memory.current": "157286400\n",
    "sys/fs/cgroup/kubepods.slice/pod1/memory.stat": STAT_V2,
    "sys/fs/cgroup/kubepods.slice/memory.max": "max\n",
    "sys/fs/cgroup/kubepods.slice/memory.current": "999999999\n",
}
V2_NAMESPACE = {
    "proc/self/mountinfo": mounts("cgroup2"),
    "proc/7/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": "268435456\n",
    "sys/fs/cgroup/memory.current": "157286400\n",
    "sys/fs/cgroup/memory.stat": STAT_V2,
}
V1_DOCKER = {
    "proc/self/mountinfo": mounts("cgroup"),
    "proc/7/cgroup": "12:cpu,cpuacct:/docker/abc\n6:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n",
    "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "268435456\n",
    "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "157286400\n",
    "sys/fs/cgroup/memory/docker/abc/memory.stat": STAT_V1,
    "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "999999999\n",
}
# Inside the container the path is the host's, and the mount is the container's own group.
V1_INSIDE = {
    "proc/self/mountinfo": mounts("cgroup", "/docker/abc"),
    "proc/7/cgroup": "6:memory:/docker/abc\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "157286400\n",
    "sys/fs/cgroup/memory/memory.stat": STAT_V1,
}
AVAILABLE = 16_000_000 * 1024
# 256 MiB, 150 used, 40 of them file cache that goes first.
LEFT = (256 - 150 + 40) * MIB


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (V2_POD, Headroom(LEFT, "cgroup v2")),
        (V2_NAMESPACE, Headroom(LEFT, "cgroup v2")),
        (V1_DOCKER, Headroom(LEFT, "cgroup v1")),
        (V1_INSIDE, Headroom(LEFT, "cgroup v1")),
        ({}, Headroom(AVAILABLE, "MemAvailable")),
        ({**V1_INSIDE, "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1}, Headroom(AVAILABLE, "MemAvailable")),
        ({**V2_NAMESPACE, "sys/fs/cgroup/memory.current": "268435456\n"}, Headroom(40 * MIB, "cgroup v2")),
        ({**V2_NAMESPACE, "sys/fs/cgroup/memory.current": "900000000\n"}, Headroom(0, "cgroup v2")),
        ({**V2_NAMESPACE, "sys/fs/cgroup/memory.max": "rubbish\n"}, Headroom(AVAILABLE, "MemAvailable")),
        # Another container's group: the limit of the group that this monitor is in says nothing of it.
        ({**V2_NAMESPACE, "proc/7/cgroup": "0::/../../elsewhere\n"}, Headroom(AVAILABLE, "MemAvailable")),
        ({**V2_NAMESPACE, "proc/meminfo": "MemAvailable: 1000 kB\n"}, Headroom(1_024_000, "MemAvailable")),
    ],
)  # fmt: skip
def test_the_nearest_limit_counts(tmp_path: Path, files: dict[str, str], expected: Headroom) -> None:
    assert read_headroom(7, tree(tmp_path, files)) == expected


def test_a_machine_that_tells_nothing_is_no_reason_to_refuse(tmp_path: Path) -> None:
    assert read_headroom(7, tmp_path) is None


def test_this_process_has_some() -> None:
    found = read_headroom(os.getpid())
    assert found is not None
    assert found.free_bytes > 0
