"""How a worker's life ended is told first, with its last verdict and its recording, also after a restart in the same folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.recording.blackbox import Ending
from diagnostics.monitor.recording.endings import Endings
from diagnostics.monitor.recording.recorder import Recorder, RecordSettings
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


def test_an_exit_that_is_told_later_is_news_then(tmp_path: Path) -> None:
    endings = Endings(None)
    path = tmp_path / "x.ring"
    noticed = 4e9
    endings.add("0", 11, Ending(noticed, None, 1, None, None), "Objects grow.", path)
    assert endings.explain(path, Ending(noticed, -signal.SIGKILL, 1, None, None)) == "Objects grow."
    (told,) = endings.last()
    assert told.to_json()["said"].startswith("It was ended by SIGKILL")
    assert endings.counted("0") == (0, 1)
