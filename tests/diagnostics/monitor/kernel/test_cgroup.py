"""The cgroup reading, over trees of both versions and over the machine that runs the test.

cgroups/v1 is recorded on a machine with both versions mounted (paths shortened, the pod's limit added); cgroups/v2 is
written after the kernel's documentation of version 2.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from diagnostics.monitor.kernel.cgroup import CgroupReading, read_cgroup

TREES = Path(__file__).parent / "cgroups"


def look(tree: Path) -> CgroupReading:
    reading = read_cgroup(100, tree / "proc", tree / "cgroup")
    assert reading is not None
    return reading


def test_version_2_is_read_with_the_limit_of_the_level_above() -> None:
    reading = look(TREES / "v2")
    assert (reading.version, reading.folder.name) == (2, "app.scope")
    assert (reading.usage_bytes, reading.limit_bytes, reading.inactive_bytes) == (300_000_000, 536_870_912, 31_457_280)
    assert reading.working_bytes == 300_000_000 - 31_457_280
    assert reading.cache_bytes == 69_206_016 - 25_165_824
    assert (reading.tmpfs_bytes, reading.kernel_bytes, reading.socket_bytes) == (4_194_304, 9_814_016, 6_750_208)
    assert (reading.psi_some_avg10, reading.psi_scope, reading.oom_kills) == (12.5, "cgroup", 1)


def test_version_1_is_read_with_the_limit_of_the_level_above() -> None:
    reading = look(TREES / "v1")
    assert (reading.version, reading.folder.name, reading.limit_bytes) == (1, "app", 2_147_483_648)
    stat = dict(line.split() for line in (reading.folder / "memory.stat").read_text().splitlines())
    assert reading.inactive_bytes == int(stat["total_inactive_file"])
    assert reading.cache_bytes == int(stat["total_cache"]) - int(stat["total_mapped_file"])
    assert (reading.tmpfs_bytes, reading.socket_bytes, reading.oom_kills) == (0, 4096, 0)
    assert reading.kernel_bytes is not None
    assert reading.psi_scope == "system"


def test_without_a_limit_the_usage_is_that_of_the_processs_own_cgroup(tmp_path: Path) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    for limit in (tree / "cgroup").rglob("memory.max"):
        limit.write_text("max\n")
    reading = look(tree)
    assert (reading.usage_bytes, reading.limit_bytes) == (273_465_344, None)


def test_in_a_container_with_the_hosts_path_the_mount_is_the_monitors_own_cgroup(tmp_path: Path) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    path = (tree / "proc" / "100" / "cgroup").read_text()
    mount = tree / "cgroup" / path.strip().removeprefix("0::/")
    assert read_cgroup(100, tree / "proc", mount) is None, "another container's cgroup was shown as the process's"
    (tree / "proc" / "self" / "cgroup").write_text(path)
    reading = read_cgroup(100, tree / "proc", mount)
    assert reading is not None
    assert (reading.usage_bytes, reading.folder) == (273_465_344, mount)


@pytest.mark.parametrize("text", ["0::/../elsewhere\n", "", "nonsense\n", "0::/gone\n"])
def test_a_cgroup_that_cannot_be_seen_is_no_reading(tmp_path: Path, text: str) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    (tree / "proc" / "100" / "cgroup").write_text(text)
    assert read_cgroup(100, tree / "proc", tree / "cgroup") is None
    assert read_cgroup(101, tree / "proc", tree / "cgroup") is None


def test_what_this_machine_tells_makes_sense() -> None:
    reading = read_cgroup(os.getpid())
    if reading is None:
        pytest.skip("this machine shows this process no memory cgroup")
    assert reading.limit_bytes is None or reading.limit_bytes > 0
    assert reading.working_bytes is None or reading.working_bytes >= 0
    assert reading.to_json()["folder"].startswith("/sys/fs/cgroup")
