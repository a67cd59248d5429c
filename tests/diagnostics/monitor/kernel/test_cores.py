"""How much of a core a service can have: idle cores, a fair share where none is idle, and the quota of its cgroup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diagnostics.monitor.kernel.cores import CoreLeft, CoresMark, mark_cores, share_left


def looks(idle: float, running: int, quota: float | None = None, used: float | None = None) -> tuple[CoresMark, ...]:
    """Two looks a second apart, on a machine of two cores."""
    first = CoresMark(100.0, running, 2, quota, None if used is None else 5.0)
    return first, CoresMark(100.0 + idle, running, 2, quota, None if used is None else 5.0 + used)


@pytest.mark.parametrize(
    ("marks", "own", "left"),
    [
        (looks(1.8, 1), 0.2, CoreLeft(1.0, 1.0)),  # a quiet machine: all of a core
        (looks(0.3, 2), 0.2, CoreLeft(1.0, 1.0)),  # two threads on two cores: each has one
        (looks(0.1, 8), 0.2, CoreLeft(1.0, 0.3)),  # what it uses and what is idle is more than its fair share
        (looks(0.0, 8), 0.1, CoreLeft(1.0, 0.25)),  # nothing is idle, but the scheduler gives it its fair share
        (looks(1.8, 1, 0.5, 0.2), 0.2, CoreLeft(0.5, 1.0)),  # the quota is half a core
        (looks(1.8, 1, 0.5, 0.45), 0.2, CoreLeft(0.25, 1.0)),  # of which neighbours use some
        (looks(1.8, 1, 2.0, 0.2), 0.2, CoreLeft(1.0, 1.0)),  # Python has no use for two
    ],
)
def test_what_is_left_of_a_core(marks: tuple[CoresMark, CoresMark], own: float, left: CoreLeft) -> None:
    assert share_left(*marks, 1.0, own) == pytest.approx(left)


def test_what_is_not_told_limits_nothing() -> None:
    nothing = CoresMark(None, None, 2)
    assert share_left(nothing, nothing, 1.0, 0.3) == CoreLeft()


def test_this_machine_is_read() -> None:
    mark = mark_cores(os.getpid())
    assert mark.cores == os.cpu_count()
    assert mark.idle_seconds is not None
    assert mark.idle_seconds >= 0
    assert mark.running is not None
    assert mark.running >= 1


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_quota_above_a_process_is_found(tmp_path: Path, version: int) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/stat").write_text(
        "cpu  10 0 10 4000 200 0 0 0\ncpu0 1 1 1 1 1\nprocs_running 3\n", encoding="utf-8"
    )
    mount = tmp_path / "proc/7/root" / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/cpu")
    (mount / "pod/app").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(
        "0::/pod/app\n" if version == 2 else "4:cpu,cpuacct:/pod/app\n", encoding="utf-8"
    )
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,cpu,cpuacct"
    point = "/sys/fs/cgroup" if version == 2 else "/sys/fs/cgroup/cpu"
    (tmp_path / "proc/7/mountinfo").write_text(f"32 31 0:29 / {point} rw,relatime - {kind}\n", encoding="utf-8")
    for folder, quota, used in (("pod", 50_000, 7), ("pod/app", None, 3)):
        (mount / folder / "cgroup.procs").write_text("", encoding="utf-8")
        if version == 2:
            (mount / folder / "cpu.max").write_text(f"{'max' if quota is None else quota} 100000\n", encoding="utf-8")
            (mount / folder / "cpu.stat").write_text(f"usage_usec {used * 1_000_000}\nuser_usec 1\n", encoding="utf-8")
        else:
            (mount / folder / "cpu.cfs_quota_us").write_text(f"{-1 if quota is None else quota}\n", encoding="utf-8")
            (mount / folder / "cpu.cfs_period_us").write_text("100000\n", encoding="utf-8")
            (mount / folder / "cpuacct.usage").write_text(f"{used * 1_000_000_000}\n", encoding="utf-8")
    mark = mark_cores(7, tmp_path)
    assert (mark.quota_cores, mark.used_seconds) == (0.5, 7.0)
    assert mark.running == 3
    assert mark.idle_seconds == 4200 / os.sysconf("SC_CLK_TCK")
