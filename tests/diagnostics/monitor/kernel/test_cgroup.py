"""The cgroup reading, over trees of both versions and over the machine that runs the test.

cgroups/v1 is recorded on a machine with both versions mounted (paths shortened, the pod's limit added); cgroups/v2 is
written after the kernel's documentation of version 2.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from diagnostics.monitor.kernel import cgroup
from diagnostics.monitor.kernel.cgroup import CgroupReading, Cgroups, read_cgroup, why_no_cgroup

TREES = Path(__file__).parent / "cgroups"


def look(tree: Path) -> CgroupReading:
    reading = read_cgroup(100, tree)
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
    stat = dict(line.split() for line in (reading.folder / "memory.stat").read_text(encoding="utf-8").splitlines())
    assert reading.inactive_bytes == int(stat["total_inactive_file"])
    assert reading.cache_bytes == int(stat["total_cache"]) - int(stat["total_mapped_file"])
    assert (reading.tmpfs_bytes, reading.socket_bytes, reading.oom_kills) == (0, 4096, 0)
    assert reading.kernel_bytes is not None
    assert reading.psi_scope == "system"


def test_without_a_limit_the_usage_is_that_of_the_processs_own_cgroup(tmp_path: Path) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    for limit in (tree / "sys").rglob("memory.max"):
        limit.write_text("max\n", encoding="utf-8")
    reading = look(tree)
    assert (reading.usage_bytes, reading.limit_bytes) == (273_465_344, None)


def inside(tree: Path, shown: str, folder: str) -> Path:
    """The tree as a container sees it whose mount begins at `folder` and shows as `shown`."""
    whole = tree / "sys/fs/cgroup"
    whole.rename(tree / "whole")
    shutil.copytree(tree / "whole" / folder, whole)
    line = (tree / "proc/self/mountinfo").read_text(encoding="utf-8").replace(" / /sys", f" {shown} /sys")
    (tree / "proc/self/mountinfo").write_text(line, encoding="utf-8")
    (tree / "proc/100/mountinfo").write_text("", encoding="utf-8")
    return tree


def test_in_a_container_with_the_hosts_path_the_mount_begins_at_its_own_cgroup(tmp_path: Path) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    own = "kubepods.slice/pod7.slice/app.scope"
    reading = look(inside(tree, f"/{own}", own))
    assert (reading.usage_bytes, reading.folder) == (273_465_344, tree / "sys/fs/cgroup")
    (tree / "proc/100/cgroup").write_text("0::/kubepods.slice/pod7.slice/another.scope\n", encoding="utf-8")
    assert read_cgroup(100, tree) is None, "this container's cgroup was shown as another one's"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_another_containers_cgroup_is_read_through_the_process(tmp_path: Path, version: str) -> None:
    """Private cgroup namespaces, Kubernetes' default: seen from the sidecar the service's cgroup is beside its own."""
    tree = shutil.copytree(TREES / version, tmp_path / "tree")
    own, service = ("kubepods/pod7", "kubepods/pod7/app") if version == "v1" else (
        "kubepods.slice", "kubepods.slice/pod7.slice/app.scope"
    )  # fmt: skip
    root = tree / "proc/100/root/sys/fs/cgroup"
    root.parent.mkdir(parents=True)
    (tree / "sys/fs/cgroup").rename(tmp_path / "whole")
    memory = "memory" if version == "v1" else "."
    shutil.copytree(tmp_path / "whole" / memory / own, tree / "sys/fs/cgroup" / memory)
    shutil.copytree(tmp_path / "whole" / memory / service, root / memory)
    for path in (tree / "proc/100/cgroup", tree / "proc/self/cgroup"):
        path.write_text(path.read_text(encoding="utf-8").replace(f":/{service}\n", ":/../5f2c\n"), encoding="utf-8")
    mounts = tree / "proc/100/mountinfo"
    kind = " - cgroup2" if version == "v2" else " - cgroup cgroup"
    lines = [
        line.replace(" / /", " /../5f2c /") if kind in line else line
        for line in mounts.read_text(encoding="utf-8").splitlines()
    ]
    mounts.write_text("\n".join(lines), encoding="utf-8")
    reading = look(tree)
    assert reading.folder == root / memory
    assert (reading.usage_bytes, reading.oom_kills) == ((273_465_344, 1) if version == "v2" else (look_v1(), 0))
    mounts.unlink()
    assert read_cgroup(100, tree) is None, "the monitor's own cgroup was shown as the service's"


def look_v1() -> int:
    return int((TREES / "v1/sys/fs/cgroup/memory/kubepods/pod7/app/memory.usage_in_bytes").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", ["0::/../elsewhere\n", "", "nonsense\n", "0::/gone\n"])
def test_a_cgroup_that_cannot_be_seen_is_no_reading(tmp_path: Path, text: str) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    (tree / "proc" / "100" / "cgroup").write_text(text, encoding="utf-8")
    assert read_cgroup(100, tree) is None
    assert why_no_cgroup(100, tree)
    assert read_cgroup(101, tree) is None
    assert "ended" in (why_no_cgroup(101, tree) or "")


def test_what_this_machine_tells_makes_sense() -> None:
    reading = read_cgroup(os.getpid())
    if reading is None:
        pytest.skip("this machine shows this process no memory cgroup")
    assert reading.limit_bytes is None or reading.limit_bytes > 0
    assert reading.working_bytes is None or reading.working_bytes >= 0
    assert reading.to_json()["folder"].startswith("/sys/fs/cgroup")


def test_a_cgroup_is_searched_for_once_while_its_process_stays_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    searches: list[int] = []
    search = cgroup.find_cgroup
    monkeypatch.setattr(cgroup, "find_cgroup", lambda pid, root: (searches.append(pid), search(pid, root))[1])
    monkeypatch.setattr(cgroup, "_SHARED_SECONDS", 0.0)
    cgroups = Cgroups(tree)
    first = cgroups.read(100)
    assert first == read_cgroup(100, tree)
    searches.clear()
    assert first is not None
    (first.folder.parent / "memory.current").write_text("223456789\n", encoding="utf-8")  # its limit is the tightest
    again = cgroups.read(100)
    assert again == look(tree)
    assert again != first
    assert searches == [100]  # of `look`
    # Moved one level up: found at once.
    membership = tree / "proc/100/cgroup"
    moved = membership.read_text(encoding="utf-8").rstrip("\n").rpartition("/")[0]
    membership.write_text(f"{moved}\n", encoding="utf-8")
    upper = cgroups.read(100)
    assert upper == look(tree)
    assert upper is not None
    assert upper.folder == first.folder.parent
    membership.unlink()
    assert cgroups.read(100) is None


def test_a_cgroup_that_can_be_read_no_more_is_searched_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = shutil.copytree(TREES / "v2", tmp_path / "tree")
    monkeypatch.setattr(cgroup, "_SHARED_SECONDS", 0.0)
    cgroups = Cgroups(tree)
    first = cgroups.read(100)
    assert first is not None
    (first.folder / "memory.current").unlink()
    assert cgroups.read(100) == read_cgroup(100, tree)
