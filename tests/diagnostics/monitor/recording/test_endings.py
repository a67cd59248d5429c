"""How a worker's life ended is told first, with its last verdict and its recording, also after a restart in the same folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.lines.growth import Gain
from diagnostics.analysis.lines.life_file import written
from diagnostics.analysis.lines.lives import LineLife
from diagnostics.analysis.lines.snapshot import Sum
from diagnostics.analysis.profile import Frame
from diagnostics.monitor.kernel.process import Identity
from diagnostics.monitor.recording.blackbox import BlackBox, Ending
from diagnostics.monitor.recording.endings import Endings
from diagnostics.monitor.recording.line_record import line_life_file
from diagnostics.monitor.recording.recorder import Recorder, RecordSettings
from diagnostics.monitor.recording.ring import RingSize
from diagnostics.monitor.workers.targets import Targets

APP = """
from fastapi import FastAPI

app = FastAPI()
"""


def test_a_death_is_told_after_a_restart_with_the_same_folder(observed: Any, http: Any, eventually: Any) -> None:
    first = observed(APP)

    def answering() -> Any:
        workers = http(f"{first.monitor}/debug/memory").json()["workers"]
        judged = (each for each in workers if "no agent" not in each["verdict"]["says"])
        return next((each for each in judged if each["state"] == "answering"), None)

    worker = eventually(answering)
    os.kill(worker["pid"], signal.SIGKILL)
    first.supervisor.process.wait(60)
    said = f"worker 0 (pid {worker['pid']}) has ended. It was ended by SIGKILL"
    eventually(
        lambda: said in first.supervisor.log.read_text(encoding="utf-8")
    )  # a busy monitor says it after the service's end
    second = observed(APP)
    ends = eventually(lambda: http(f"{second.monitor}/debug/memory").json()["ends"])
    assert ends[0]["pid"] == worker["pid"]
    assert ends[0]["said"].startswith("It was ended by SIGKILL")
    assert ends[0]["verdict"]
    assert Path(ends[0]["file"]).exists()
    page = http(f"{second.monitor}/metrics").body.decode()
    assert 'service_restarts_total{worker="0"} 0.0' in page  # since this monitor began


def test_a_service_that_is_killed_as_it_starts_is_told_of(observed: Any, eventually: Any) -> None:
    service = observed(APP)
    pid = eventually(
        lambda: re.search(r"server process \[(\d+)\]", service.supervisor.log.read_text(encoding="utf-8"))
    )[1]
    os.kill(int(pid), signal.SIGKILL)
    service.supervisor.process.wait(60)
    said = f"worker 0 (pid {pid}) has ended. It was ended by SIGKILL"
    eventually(lambda: said in service.supervisor.log.read_text(encoding="utf-8"))


def test_so_is_one_that_has_ended_before_a_busy_monitor_looks_for_the_first_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.kill()
    recorder = Recorder.below(tmp_path, Targets(tmp_path), RecordSettings())
    recorder.watch(process.pid)
    recorder.exited(process.pid, process.returncode)
    assert f"worker 0 (pid {process.pid}) has ended. It was ended by SIGKILL" in caplog.text
    assert [end.pid for end in recorder.endings()] == [process.pid]


@pytest.mark.parametrize(
    ("returncode", "oom_kills", "quiet", "out_of_memory"),
    [
        (0, 0, True, False),
        (-signal.SIGTERM, None, True, False),
        (128 + signal.SIGINT, 0, True, False),  # a server that catches Ctrl-C and says so by its exit code
        (None, 0, True, False),
        (1, 0, False, False),
        (-signal.SIGSEGV, 0, False, False),
        (-signal.SIGKILL, 1, False, True),
        (None, 1, False, True),
        (3, 1, False, False),  # another process of its cgroup was killed
    ],
)
def test_which_ends_are_news(returncode: int | None, oom_kills: int | None, quiet: bool, out_of_memory: bool) -> None:
    ending = Ending(1.0, returncode, oom_kills, None, None)
    assert (ending.quiet, ending.out_of_memory) == (quiet, out_of_memory)
    assert Ending.from_json(ending.to_json()) == ending


def test_a_container_that_takes_its_count_of_kills_with_it_is_news_where_its_limit_was_near() -> None:
    near = Ending(1.0, None, None, "/proc/7/root/sys/fs/cgroup", 1000, 900)
    assert not near.quiet
    assert "whether the kernel killed it for memory is unknown: its cgroup is gone with it" in near.said
    assert "900 bytes in use of 1000" in near.said
    assert Ending.from_json(near.to_json()) == near
    assert Ending(1.0, None, None, "/proc/7/root/sys/fs/cgroup", 1000, 300).quiet


def test_restarts_and_kills_are_counted_by_worker() -> None:
    endings = Endings(None)
    endings.begun("0")
    endings.add("0", 11, Ending(1.0, -signal.SIGKILL, 1, None, 4096), "Objects grow.", None)
    endings.begun("0")
    endings.add("1", 12, Ending(1.0, 0, 0, None, None), "", None)
    assert endings.counted("0") == (1, 1)
    assert endings.counted("1") == (0, 0)


def test_the_lines_that_gained_are_told_with_the_end_also_by_the_next_monitor(tmp_path: Path) -> None:
    """Soon after an alarm its words name no line yet; and who was killed cannot be asked any more."""

    def line(name: str, came: float) -> tuple[Frame, tuple[Frame, Gain]]:
        frame = Frame(name, "/srv/app.py", 7)
        path = tuple((20.0 * part, came * part / 3) for part in range(4))
        return frame, (frame, Gain(Sum(came, came * 65_536, came), Sum(), Sum(came, came * 65_536, came), path))

    life = LineLife(100.0, 160.0, 60.0, 65_536.0, dict([line("leaks", 8e6), line("noise", 0.0)]))
    box = BlackBox(tmp_path, keep=4)
    ring = box.open(Identity(11, "boot", 7), 1.0, "0", (RingSize(1.0, 4),))
    assert ring.path is not None
    ending = Ending(time.time(), -signal.SIGKILL, 1, None, 4096)
    ring.write_end({**ending.to_json(), "verdict": "Objects grow."})
    ring.close()
    line_life_file(ring.path).write_text(written(life), encoding="utf-8")
    first = Endings(None)
    first.add("0", 11, ending, "Objects grow.", ring.path, life)
    for endings in (first, Endings(box)):
        (told,) = (end.to_json() for end in endings.last())
        (gained,) = told["lines"]
        assert (gained["name"], gained["seconds"], gained["grown_bytes"]["mid"]) == ("leaks (app.py:7)", 60.0, 8e6)
        assert told["verdict"] == "Objects grow."


def test_an_exit_that_is_told_later_is_news_then(tmp_path: Path) -> None:
    endings = Endings(None)
    path = tmp_path / "x.ring"
    noticed = 4e9
    endings.add("0", 11, Ending(noticed, None, 1, None, None), "Objects grow.", path)
    assert endings.explain(path, Ending(noticed, -signal.SIGKILL, 1, None, None)) == "Objects grow."
    (told,) = endings.last()
    assert told.to_json()["said"].startswith("It was ended by SIGKILL")
    assert endings.counted("0") == (0, 1)
