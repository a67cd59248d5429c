"""Files in a tmpfs are charged to a service's cgroup: that is told, and no worker is captured for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.trend import Trend
from diagnostics.monitor.judging.guard import Guard
from diagnostics.monitor.recording.outlook import Growth, Outlook
from diagnostics.monitor.rules.rule import Capture, Firing, Rule

MIB = 1024**2
NEAR = Rule("near", "cgroup_share", 0.85, 0, (Capture("tasks", {"fork": False}),), 600, 3)
BUFFERS = Rule("buffers", "buffered_bytes", 1000, 0, (Capture("retained"),), 600, 3)


class Worker:
    def __init__(self, pid: int) -> None:
        self.pid, self.name = pid, str(pid)


class Targets:
    def __init__(self, *workers: Worker) -> None:
        self._workers = list(workers)

    def workers(self) -> list[Worker]:
        return self._workers


def growing(series: str, slope: float) -> Growth:
    return Growth(series, 120.0, Trend("growing", slope, slope, slope, 0.05, 100.0, 100, 0.0, 100.0), None)


class Recorder:
    """Of each worker the slopes of its RSS and of what its cgroup is charged for."""

    def __init__(self, charged: float, **rss: float) -> None:
        self._found = {
            int(name[1:]): Outlook(
                tuple(growing(*each) for each in (("rss_bytes", slope), ("cgroup_working_bytes", charged))),
                None,
                None,
                None,
            )
            for name, slope in rss.items()
        }

    def outlook(self, pid: int) -> Outlook | None:
        return self._found.get(pid)


class Captures:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def begin(self, request: dict[str, Any], *, by: str) -> dict[str, Any]:
        self.asked.append(request["worker"])
        return {"id": "x"}

    async def ended(self, _capture_id: str) -> dict[str, Any]:
        return {"state": "done"}


class Notes:
    def note(self, *_arguments: Any, **_facts: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("recorder", "rule", "captured"),
    [
        pytest.param(Recorder(1e6, w1=9e5, w2=1e3), NEAR, ["1"], id="the one that grows"),
        pytest.param(Recorder(1e6, w1=1e3, w2=1e3), NEAR, [], id="what grows is beside them"),
        pytest.param(Recorder(1e6, w1=4e5, w2=5e5), NEAR, ["1", "2"], id="both grow"),
        pytest.param(Recorder(1e6, w1=1e3, w2=1e3), BUFFERS, ["1", "2"], id="a rule on the worker itself"),
        pytest.param(Recorder(1e6, w1=9e5), NEAR, ["1", "2"], id="of one nobody knows"),
        pytest.param(Recorder(0.0, w1=0.0, w2=0.0), NEAR, ["1", "2"], id="nothing grows now"),
    ],
)
def test_a_rule_on_the_shared_limit_captures_who_grows_and_spares_the_others(
    recorder: Recorder, rule: Rule, captured: list[str]
) -> None:
    """A tmpfs filled up in the cgroup, and the rule captured the innocent worker."""
    workers, captures = [Worker(1), Worker(2)], Captures()
    guard = Guard(Targets(*workers), recorder, captures, Notes(), (rule,))  # type: ignore[arg-type]
    for worker in workers:
        asyncio.run(guard._act(worker, Firing(rule, 1.0, 0.9)))  # type: ignore[arg-type]
    assert captures.asked == captured
    spared = [fired for fired in guard.firings if fired.outcome == "spared"]
    assert sorted(fired.worker for fired in spared) == sorted({"1", "2"} - set(captured))
    assert all("what grows is in" in str(fired.reason) for fired in spared)


FILLING = """
import asyncio, contextlib, os
from fastapi import FastAPI

files = []

async def fill():
    while True:
        file = os.open(os.environ["TMPFS"], os.O_TMPFILE | os.O_RDWR)
        os.write(file, bytes(200_000))
        files.append(file)
        await asyncio.sleep(0.1)

@contextlib.asynccontextmanager
async def lifespan(app):
    filling = asyncio.create_task(fill())
    yield
    filling.cancel()

app = FastAPI(lifespan=lifespan)
"""


def test_a_tmpfs_that_fills_is_told_by_status_and_no_worker_is_captured_for_it(
    memory_cgroup: Any, launch: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    """50 s before its limit by our own forecast: "Load only (high confidence), nothing to fix", and exit code 0."""
    limit = 600 * MIB
    folder = memory_cgroup(limit)
    (tmp_path / "filling.py").write_text(FILLING, encoding="utf-8")
    into = f"echo $$ > {folder}/cgroup.procs; exec {sys.executable} -m uvicorn filling:app --port 0"
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "soon"\ntrigger = "seconds_to_limit"\nbelow = 600\nfor = 0\ncooldown = 2\nlimit = 1000\n'
        'capture = "tasks"\n',
        encoding="utf-8",
    )
    service = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", "sh", "-c", into, cwd=tmp_path,
        env={
            "DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05",
            "DIAGNOSTICS_RULES": str(rules), "TMPFS": "/dev/shm",
        },
    )  # fmt: skip
    monitor = service.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    service.wait_for("Uvicorn running", 60)

    def told() -> Any:
        whole = http(f"{monitor}/debug/memory").json()["service"]["verdict"]
        return whole if whole["verdict"] == "cgroup_growth" and whole["confidence"] == "high" else None

    whole = eventually(told, patience=90)
    assert whole["culprit"] == "files in a tmpfs and shared memory"
    status = subprocess.run(
        [sys.executable, "-m", "diagnostics", "status", monitor],
        check=False, capture_output=True, encoding="utf-8", timeout=60, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert status.returncode == 1, status.stdout
    assert "nothing to fix" not in status.stdout.split("worker 0")[0]
    assert status.stdout.index("The cgroup grows, and its processes do not") < status.stdout.index("worker 0")
    assert "tmpfs and shared memory" in status.stdout

    def spared() -> Any:
        """The newest firing. One before the verdict may be for the worker's own start, which on a slow machine takes long."""
        firings = http(f"{monitor}/debug/memory/rules").json()["firings"]
        return firings[0] if firings and firings[0]["outcome"] == "spared" else None

    firing = eventually(spared, patience=60)
    assert (firing["rule"], firing["capture"]) == ("soon", None), firing
    assert "none of the workers" in firing["reason"]
    service.end()
