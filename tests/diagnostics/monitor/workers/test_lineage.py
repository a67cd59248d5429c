"""Lines of workers: who follows whom, what is kept of each life, in memory and on the disk."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnostics.analysis.lines.life_file import written
from diagnostics.analysis.lines.lives import LineLife
from diagnostics.analysis.lives import Life
from diagnostics.monitor.kernel.process import Identity, identity, parent_of
from diagnostics.monitor.recording.blackbox import BlackBox
from diagnostics.monitor.recording.line_record import line_life_file
from diagnostics.monitor.recording.recorder import Recorder, RecordSettings
from diagnostics.monitor.recording.ring import RingSize, peek
from diagnostics.monitor.workers.lineage import LIVES, Lineage, life_of
from diagnostics.monitor.workers.targets import Targets

RINGS = (RingSize(1.0, 4), RingSize(60.0, 4))
PARENT = Identity(5, "boot", 7)
LINES = LineLife(100.0, 200.0, 100.0, 524_288.0, {}, 3.0)
SUPERVISOR = """
import subprocess, sys
while True:
    child = subprocess.Popen(["sleep", "600"])
    print(child.pid, flush=True)
    child.wait()
"""


def test_a_number_that_is_taken_over_under_the_same_parent_goes_on() -> None:
    lineage, life = Lineage(), Life(60.0, {})
    lineage.begun("0", PARENT)
    for _ in range(LIVES + 3):
        lineage.ended("0", life)
        lineage.begun("0", PARENT)
    assert lineage.lives("0") == (life,) * LIVES
    assert lineage.lives("1") == ()
    lineage.ended("0", life)
    lineage.begun("0", Identity(6, "boot", 9))  # another service
    assert lineage.lives("0") == ()
    lineage.ended("0", life)
    lineage.begun("0", None)  # nobody in particular started it
    assert lineage.lives("0") == ()
    lineage.begun("2", PARENT, [life])
    assert lineage.lives("2") == (life,)


def test_a_life_is_kept_without_its_warm_up_and_in_few_points() -> None:
    times = [float(second) for second in range(1000)]
    found = life_of({"time": times, "rss_bytes": times, "cgroup_working_bytes": times}, 0.0, ("rss_bytes", "tasks"))
    assert found is not None
    assert found.seconds == 999
    assert len(found.series["rss_bytes"]) <= 60
    assert found.series["rss_bytes"][0][0] >= 999 / 4
    assert found.series["cgroup_working_bytes"][0][0] < 20  # goes on over a replacement
    assert life_of({"time": []}, 0.0, ()) is None


@pytest.fixture
def supervisor() -> Iterator[subprocess.Popen[str]]:
    """Starts a worker anew whenever it has ended, and tells its pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True
    )
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout
    process.stdout.close()


def test_lives_go_on_with_a_new_monitor_and_their_files_are_few(
    tmp_path: Path, supervisor: subprocess.Popen[str]
) -> None:
    """Workers that come and go, seen by one recorder and then by the next one over the same folder."""
    (tmp_path / "agents").mkdir()
    assert supervisor.stdout
    stdout = supervisor.stdout

    def recorder() -> tuple[Targets, Recorder]:
        targets = Targets(tmp_path)
        return targets, Recorder(targets, RecordSettings(seconds=60.0), BlackBox(tmp_path, keep=20))

    async def scene() -> None:
        targets, one = recorder()
        for number in range(8):
            pid = int(stdout.readline())
            targets.watch(pid)
            await one.look()
            assert [(each.name, each.pid) for each in targets.workers()] == [("0", pid)]
            assert len(one.lives("0")) == number
            if number < 7:
                os.kill(pid, signal.SIGTERM)
                while os.path.exists(f"/proc/{pid}"):
                    await asyncio.sleep(0.01)
        await one.close()
        files = list((tmp_path / "blackbox").glob("*.ring"))
        assert len(files) == 4  # three of those that ended quietly, and that of the one that lives
        for file in files:  # as of workers that keep a live heap
            line_life_file(file).write_text(written(LINES), encoding="utf-8")
        targets, other = recorder()
        targets.watch(pid)
        await other.look()
        assert [life.lines for life in other.lives("0")] == [LINES] * 3
        await other.close()

    asyncio.run(scene())


def test_the_last_of_each_number_and_who_ended_badly_outlive_the_recycled(tmp_path: Path) -> None:
    box = BlackBox(tmp_path, keep=6)
    started = 1_600_000_000.0

    def leave(worker: str, number: int, end: dict[str, object] | None) -> Path:
        file = box.open(Identity(number, "boot", number), started + number, worker, RINGS, PARENT)
        assert file.path is not None
        if end is not None:
            file.write_end(end)
        file.close()
        os.utime(file.path, (number, number))
        return file.path

    killed = leave("0", 1, {"returncode": None, "oom_kills": 1})
    only = leave("1", 2, {"returncode": 0})
    quiet = [leave("0", number, {"returncode": None, "oom_kills": 0}) for number in range(3, 11)]
    oldest = next(path for path in quiet if path.exists())
    line_life_file(oldest).touch()
    quiet.append(leave("0", 11, {"returncode": None, "oom_kills": 0}))
    assert not oldest.exists()
    assert not line_life_file(oldest).exists()  # it goes with its recording
    kept = set(box.folder.iterdir())
    assert killed in kept
    assert only in kept
    assert len(kept) <= 6
    assert quiet[-1] in kept
    found = box.of_line("0", PARENT, 2)
    assert [one.header.process["pid"] for _, one in found] == [10, 11]
    assert box.of_line("0", Identity(8, "boot", 7), 2) == []
    assert peek(killed)[1] == {"returncode": None, "oom_kills": 1}


def test_the_file_of_a_worker_that_lives_is_never_removed(tmp_path: Path) -> None:
    box = BlackBox(tmp_path, keep=2)
    living = [box.open(Identity(number, "boot", number), 1.0 + number, str(number), RINGS) for number in range(4)]
    assert len(list(box.folder.iterdir())) == 4
    for each in living:
        each.close()


def test_the_parent_of_a_process_is_known_by_its_start_too() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        own = identity(os.getpid())
        assert own is not None
        assert parent_of(process.pid) == own[0]
        process.kill()
    assert parent_of(process.pid) is None
