"""The folder of recordings, what is said of an end, and an end that the kernel made for want of memory."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.kernel.process import identity
from diagnostics.monitor.recording.blackbox import BlackBox, Ending
from diagnostics.monitor.recording.outlook import outlook
from diagnostics.monitor.recording.ring import RingSize, decode
from diagnostics.monitor.recording.vitals import index_of

FAST = {"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05", "DIAGNOSTICS_RECORD_SECONDS": "60"}

GROWING = """
import time
kept = []
while True:
    kept.append(b"x" * 1_000_000)
    time.sleep(0.02)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_old_recordings_make_room_and_a_full_disk_leaves_memory(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    box = BlackBox(tmp_path, keep=3)
    for number in range(5):
        old = box.folder / f"20200101T00000{number}Z-1.ring"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    found = identity(sleeper.pid)
    assert found is not None
    file = box.open(*found, "0", (RingSize(1.0, 4), RingSize(60.0, 4)))
    kept = sorted(path.name for path in box.folder.iterdir())
    assert kept[:2] == ["20200101T000003Z-1.ring", "20200101T000004Z-1.ring"]
    assert kept[2].endswith(f"-{sleeper.pid}.ring")
    # Another monitor writes that file now; and a recorder of another build finds other fields in it.
    second = box.open(*found, "0", (RingSize(1.0, 4), RingSize(60.0, 4)))
    assert second.path is not None
    assert second.path.name.endswith(f"-{sleeper.pid}.1.ring")
    for each in (file, second):
        each.close()
    box.folder.chmod(0o700)
    for path in box.folder.iterdir():
        path.unlink()
    box.folder.rmdir()
    box.folder.write_bytes(b"")  # stands for any disk that fails: root may write where others may not
    with caplog.at_level(logging.WARNING):
        memory = box.open(*found, "0", (RingSize(1.0, 4), RingSize(60.0, 4)))
    assert memory.path is None
    assert "in memory only" in caplog.text
    memory.close()


def test_what_is_said_of_an_end() -> None:
    def said(returncode: int | None, oom: int | None, limit: int | None = None) -> str:
        return Ending(1.0, returncode, oom, "/x", limit).said

    assert said(0, 0) == "It ended with exit code 0; the kernel killed nothing of its cgroup for memory."
    assert said(-9, 1, 2048) == (
        "It was ended by SIGKILL; the kernel killed a process of its cgroup for memory (limit 2048 bytes)."
    )
    assert said(-9, 2) == (
        "It was ended by SIGKILL; the kernel killed 2 processes of its cgroup for memory (no limit: the machine ran out)."
    )
    assert said(-77, None) == "It was ended by signal 77."
    assert "not known" in said(None, None)


@pytest.fixture
def limited(memory_cgroup: Any) -> Path:
    folder: Path = memory_cgroup(64 * 2**20)
    return folder


def test_an_oom_kill_by_the_kernel_is_said_and_the_way_there_is_kept(
    limited: Path, launch: Any, tmp_path: Path
) -> None:
    into = f"echo $$ > {limited}/cgroup.procs; exec {sys.executable} -c '{GROWING}'"
    supervisor = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", "sh", "-c", into,
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), **FAST},
    )  # fmt: skip
    assert supervisor.process.wait(60) == -signal.SIGKILL
    (file,) = (tmp_path / "dir" / "blackbox").iterdir()
    shown = launch(sys.executable, "-m", "diagnostics", "blackbox", file)
    assert shown.process.wait(60) == 0
    assert "It was ended by SIGKILL; the kernel killed a process of its cgroup for memory (limit 67108864 bytes)." in (
        shown.output
    )
    last = decode(file.read_bytes()).rings[0].records[-1]
    assert last[index_of("cgroup_limit_bytes")] == 64 * 2**20
    assert 32 * 2**20 < last[index_of("rss_bytes")] < 80 * 2**20
    assert outlook(decode(file.read_bytes())).limit_bytes == 64 * 2**20
