"""Captures of live services: their price, their refusals, what they measured, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import diagnostics

APP = """
import asyncio, sys, time
from contextlib import asynccontextmanager
from fastapi import FastAPI

kept = []

@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(fill())
    yield
    task.cancel()

async def fill():
    while True:
        kept.append(bytearray(4000))  # the line of the leak
        await asyncio.sleep(0.005)

app = FastAPI(lifespan=lifespan)

@app.get("/hold-up")
async def hold_up(seconds: float):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(0.3)
        await asyncio.sleep(0)

burning = False

@app.get("/burn")
def burn():
    global burning
    burning = True
    while burning:
        sum(range(1000))

@app.get("/rest")
async def rest():
    global burning
    burning = False
"""


class Client:
    """Asks one service's monitor."""

    def __init__(self, http: Any, eventually: Any, service: Any) -> None:
        self.http, self.eventually, self.service = http, eventually, service
        self.url = f"{service.monitor}/debug/memory/captures"
        eventually(lambda: [worker for worker in self.workers() if worker["state"] == "answering"])

    def workers(self) -> Any:
        return self.http(f"{self.service.monitor}/debug/memory").json()["workers"]

    def begin(self, kind: str, **options: Any) -> Any:
        return self.http(self.url, "POST", {"kind": kind, "seconds": 0.5, **options})

    def take(self, kind: str, **options: Any) -> Any:
        """A capture that has ended."""
        begun = self.begin(kind, **{"force": True, **options})
        assert begun.status == 202, begun.json()
        return self.ended(begun.json()["id"])

    def ended(self, capture_id: str) -> Any:
        return self.eventually(lambda: (found := self.find(capture_id))["state"] in ("done", "failed") and found)

    def find(self, capture_id: str) -> Any:
        return self.http(f"{self.url}/{capture_id}").json()

    def artifact(self, capture: Any, name: str) -> bytes:
        return self.http(f"{self.url}/{capture['id']}/artifacts/{name}").body


@pytest.fixture
def client(observed: Any, http: Any, eventually: Any) -> Callable[..., Client]:
    def start(source: str = APP, *options: str, **environment: str) -> Client:
        return Client(http, eventually, observed(source, *options, env=environment))

    return start


def test_a_price_before_a_bill_after_and_no_secret_anywhere(client: Callable[..., Client]) -> None:
    one = client(APP, "--header", "x-api-key:sk-live-abcdefgh12345678")
    begun = one.begin("memray", render=True, force=True).json()
    assert begun["estimate"]["stall_ms"] >= begun["estimate"]["ending_ms"] > 0
    assert begun["estimate"]["headroom_bytes"] > 0
    capture = one.ended(begun["id"])
    assert capture["state"] == "done", capture
    assert capture["forced"] is begun["estimate"]["would_saturate"]
    assert capture["versions"]["python"].startswith("3.")
    assert capture["versions"]["highwater"] == diagnostics.__version__
    assert "uvicorn" in capture["command"]
    assert capture["estimate"] == begun["estimate"]
    measured = capture["result"]["measured"]
    assert measured["fork_ms"] == 0
    assert measured["ending_ms"] > 0
    assert measured["max_lag_ms"] > 0
    assert all(share is not None for share in measured["cpu_share"].values())
    assert measured["artifact_bytes"] == sum(artifact["bytes"] for artifact in capture["artifacts"])
    assert measured["artifact_bytes"] < capture["estimate"]["disk_bytes"]
    assert capture["result"]["coverage_low"] is False
    for artifact in capture["artifacts"]:
        body = one.artifact(capture, artifact["name"])
        assert len(body) == artifact["bytes"], artifact["name"]
        assert b"sk-live" not in body, artifact["name"]
        assert b"the line of the leak" not in body, artifact["name"]  # source lines only where asked for
    assert "sk-live" not in json.dumps(capture)


def test_a_capture_that_would_be_an_outage_is_refused_unless_forced(client: Callable[..., Client], http: Any) -> None:
    one = client()
    burning = threading.Thread(target=http, args=(f"{one.service.url}/burn",))
    burning.start()
    refused = one.begin("tracemalloc", frames=25)
    error = refused.json()["error"]
    assert (refused.status, error["code"]) == (503, "too_costly")
    assert error["estimate"]["would_saturate"] is True
    assert "of a core" in error["message"]
    assert '"force": true' in error["remedy"]
    # What the service can bear is offered by the command that takes it, with its price.
    assert "diagnostics capture URL --kind tasks" in error["remedy"]
    assert "frames" not in error["remedy"]  # one frame would be too much, too: not a sentence that is always the same
    assert [offer["estimate"]["would_saturate"] for offer in error["offers"]] == [False] * len(error["offers"])
    assert one.workers()[0]["window"] is None
    assert http(one.url).json() == {"captures": []}
    forced = one.take("tracemalloc", frames=25)
    http(f"{one.service.url}/rest")
    burning.join()
    assert forced["forced"] is True
    assert "of a core" in forced["forced_over"]
    assert forced["result"]["measured"]["fork_ms"] > 0
    assert one.begin("tracemalloc", force="yes").json()["error"]["message"] == "force is 'yes'"
    told = http(f"{one.service.monitor}/metrics").body.decode()
    for outcome in ("refused", "done"):
        assert f'diagnostics_captures_total{{kind="tracemalloc",outcome="{outcome}",worker="0"}} 1.0\n' in told
    assert 'diagnostics_capture_seconds_count{kind="tracemalloc",worker="0"} 1.0\n' in told
    kept = sum(artifact["bytes"] for artifact in forced["artifacts"])
    assert f'diagnostics_artifact_bytes{{worker="0"}} {float(kept)}\n' in told


def test_a_window_on_a_service_that_does_not_keep_up_is_cut_short(client: Callable[..., Client], http: Any) -> None:
    one = client()
    holding = threading.Thread(target=http, args=(f"{one.service.url}/hold-up?seconds=4.5",))
    holding.start()
    began = time.monotonic()
    capture = one.take("tracemalloc", seconds=60, max_lag_ms=50)
    assert time.monotonic() - began < 30
    holding.join()
    assert capture["state"] == "done", capture
    assert "ms late, the limit is 50 ms" in capture["result"]["cut_short"]
    assert capture["result"]["seconds"] < 30
    assert capture["result"]["measured"]["max_lag_ms"] > 50


def test_two_captures_are_compared_as_artifact_and_by_address(client: Callable[..., Client], http: Any) -> None:
    one = client()
    before = one.take("tracemalloc", seconds=0.3)
    after = one.take("tracemalloc", seconds=0.8, diff=before["id"])
    assert after["state"] == "done", after
    kept = json.loads(one.artifact(after, "diff.json"))
    address = f"{one.url}/{after['id']}/diff/{before['id']}"
    assert http(address).json() == kept
    grown = max(kept["samples"], key=lambda sample: sample[1][0])
    _function, file, line = kept["frames"][grown[0][0]]
    assert (Path(file).name, APP.splitlines()[line - 1].split("#")[0].strip()) == (
        "service.py",
        "kept.append(bytearray(4000))",
    )
    assert b"<html" in http(f"{address}?format=html").body
    assert b"service.py" in http(f"{address}?format=text").body
    assert http(f"{address}?format=pprof").body[:2] == b"\x1f\x8b"
    assert http(f"{address}?format=pdf").status == 422
    assert one.begin("tracemalloc", diff="nothing").status == 404
    other = one.take("memray", seconds=0.3, view="high-water", render=False)
    assert http(f"{one.url}/{other['id']}/diff/{before['id']}").status == 422
    assert one.begin("memray", diff=before["id"]).status == 422
    assert {artifact["name"] for artifact in other["artifacts"]} == {"capture.bin", "profile.json", "profile.pb.gz"}


def test_what_only_the_full_format_can_tell_is_said_and_told(client: Callable[..., Client]) -> None:
    one = client()
    refused = one.begin("memray", view="temporary")
    assert refused.status == 422
    assert '"aggregated": false' in refused.json()["error"]["remedy"]
    capture = one.take("memray", view="temporary", aggregated=False)
    assert capture["state"] == "done", capture
    names = {artifact["name"] for artifact in capture["artifacts"]}
    assert {"flamegraph-temporary.html", "stats.txt"} <= names
    assert capture["result"]["sample_types"][0] == ["alloc_space", "bytes"]


@pytest.mark.parametrize(
    ("before", "status", "code"),
    [
        ("import sys; sys.modules['memray'] = None\n", 422, "memray_missing"),
        ("import memray; tracker = memray.Tracker('own.bin'); tracker.__enter__()\n", 409, "tracker_active"),
    ],
)
def test_a_service_that_memray_cannot_look_into_is_an_error_and_no_capture(
    client: Callable[..., Client], http: Any, before: str, status: int, code: str
) -> None:
    one = client(before + APP)
    answer = one.begin("memray", force=True)
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["remedy"]
    one.eventually(lambda: http(one.url).json() == {"captures": []})
    assert one.workers()[0]["window"] is None
    if code == "memray_missing":
        assert one.take("tracemalloc")["state"] == "done"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "highwater-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_fails_the_capture_and_leaves_no_half_file(
    client: Callable[..., Client], small_disk: Path, http: Any
) -> None:
    one = client(APP, DIAGNOSTICS_DIR=str(small_disk), DIAGNOSTICS_KEEP_FREE_BYTES="0")
    begun = one.begin("memray", seconds=1, force=True).json()
    filler = small_disk / "filler"
    # The capture writes meanwhile, and may be first.
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while (free := shutil.disk_usage(small_disk).free - 1_000_000) > 0:
            file.write(bytes(min(free, 65_536)))
    capture = one.ended(begun["id"])
    assert capture["error"]["code"] == "no_room", capture
    assert capture["artifacts"] == []
    left = [path for path in (small_disk / "captures").rglob("*") if path.is_file()]
    assert [path.name for path in left] in ([], ["manifest.json"])
    full = one.begin("memray", force=True)
    assert (full.status, full.json()["error"]["code"]) == (507, "no_room")
    filler.unlink()
    assert one.take("tracemalloc")["state"] == "done"


def test_a_quota_that_is_none_is_refused_at_the_start(launch: Any) -> None:
    monitor = launch(
        sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", env={"DIAGNOSTICS_KEEP_DAYS": "soon"}
    )
    assert monitor.process.wait(60) == 2
    assert "DIAGNOSTICS_KEEP_DAYS is 'soon'" in monitor.output
