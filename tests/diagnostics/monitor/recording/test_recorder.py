"""The flight recorder over real processes: what it keeps, what survives whose death, and what it says of an end."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from diagnostics.errors import NotFoundError
from diagnostics.monitor.kernel.process import alive, cpu_seconds, exit_status, identity, lives, read_process
from diagnostics.monitor.recording.blackbox import BlackBox
from diagnostics.monitor.recording.recorder import Recorder, RecordSettings
from diagnostics.monitor.recording.ring import Header, Recording, RingSize, decode
from diagnostics.monitor.recording.vitals import FIELDS, fold, index_of, vitals
from diagnostics.monitor.web.metrics import METRICS
from diagnostics.monitor.workers.targets import Targets

FAST = {"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05", "DIAGNOSTICS_RECORD_SECONDS": "60"}

APP = """
import asyncio, time
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)

@app.get("/stream")
async def stream(n: int):
    async def events():
        for number in range(n):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0)
    return StreamingResponse(events(), media_type="text/event-stream")

@app.get("/block")
async def block(seconds: float):
    time.sleep(seconds)
"""


def timeline(http: Any, service: Any, query: str = "") -> Any:
    """The timeline with its rows as dictionaries; None while nothing is recorded."""
    answer = http(f"{service.monitor}/debug/memory/timeline{query}")
    if answer.status != 200:
        return None
    told = answer.json()
    names = [field["name"] for field in told["fields"]]
    return {**told, "rows": [dict(zip(names, row, strict=True)) for row in told["rows"]]}


def last_row(http: Any, service: Any) -> Any:
    told = timeline(http, service)
    return told["rows"][-1] if told and told["rows"] else {}


def test_connections_of_clients_are_counted_and_those_to_others_are_not(
    observed: Any, http: Any, eventually: Any
) -> None:
    """What a WebSocket is to the record: a verdict weighs growth against them."""
    service = observed(APP, env=FAST)
    eventually(lambda: last_row(http, service).get("client_connections") == 0, what="no client")
    address = urlsplit(service.url)
    with contextlib.ExitStack() as opened:
        for _ in range(3):
            opened.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
        row = eventually(lambda: last_row(http, service).get("client_connections") == 3 and last_row(http, service))
        assert row["outgoing_connections"] == 0
    eventually(lambda: last_row(http, service).get("client_connections") == 0, what="no client any more")


def test_a_service_is_recorded_from_inside_and_outside(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP, env=FAST)
    eventually(lambda: last_row(http, service).get("in_use_bytes"))
    assert http(f"{service.url}/stream?n=500").body.count(b"data") == 500

    def counted() -> Any:
        found = last_row(http, service)
        # On a machine with many sockets the kernel's table of them is read seldom: it may be older than this service.
        return found.get("streams_finished_total") == 1 and found["buffered_kernel_bytes"] is not None and found

    row = eventually(counted, what="a stream counted")
    assert row["events_total"] == 500
    assert (row["open_streams"], row["buffered_app_bytes"], row["agent_answers"]) == (0, 0, 1)
    assert 0 < row["in_use_bytes"] < 2 * row["rss_bytes"]
    assert row["threads"] >= 2
    assert row["tasks"] >= 1
    assert row["fds"] > 3
    assert row["buffered_transport_bytes"] == 0
    assert row["buffered_kernel_bytes"] == 0
    assert row["loop_lag_seconds"] >= 0
    assert row["interval_seconds"] == 0.05
    told = timeline(http, service)
    assert max(found["events_per_second"] or 0 for found in told["rows"]) > 0
    assert told["rows"] == sorted(told["rows"], key=lambda found: found["time"])
    recorder = told["recorder"]
    assert Path(recorder["file"]).stat().st_size == recorder["bytes"]
    assert recorder["rings"][0]["capacity"] == 1200
    assert (told["worker"], told["end"]) == ("0", None)
    assert told["outlook"]["series"]["in_use_bytes"]["level"] == pytest.approx(0.05 / 3)

    lines = list(csv.DictReader(io.StringIO(http(f"{service.monitor}/debug/memory/timeline?format=csv").body.decode())))
    assert float(lines[-1]["events_total"]) == 500
    assert timeline(http, service, "?seconds=0.0001")["rows"] == []
    assert timeline(http, service, "?worker=0&seconds=0")["rows"]
    metrics = http(f"{service.monitor}/metrics").body.decode()
    assert 'asyncio_tasks{state="cancelling",worker="0"} 0.0' in metrics
    assert 'gc_collections_total{generation="2",worker="0"}' in metrics
    assert 'event_loop_lag_seconds_count{worker="0"}' in metrics

    for query, status, says in (
        ("?seconds=-1", 422, "seconds is '-1'"),
        ("?seconds=nan", 422, "seconds is 'nan'"),
        ("?seconds=soon", 422, "seconds is 'soon'"),
        ("?format=xml", 422, "format is 'xml'"),
        ("?worker=9", 404, "no worker '9'"),
    ):
        answer = http(f"{service.monitor}/debug/memory/timeline{query}")
        assert (answer.status, answer.json()["error"]["message"]) == (status, says)


def test_a_killed_service_leaves_its_last_readings_and_its_exit(
    observed: Any, http: Any, eventually: Any, launch: Any
) -> None:
    service = observed(APP, env=FAST)
    eventually(lambda: last_row(http, service).get("in_use_bytes"))
    told = timeline(http, service)
    os.kill(told["process"]["pid"], signal.SIGKILL)
    assert service.supervisor.process.wait(60) == -signal.SIGKILL
    found = decode(Path(told["recorder"]["file"]).read_bytes())
    assert found.end is not None
    assert found.end["returncode"] == -signal.SIGKILL
    assert "ended by SIGKILL" in found.end["said"]
    assert found.rings[0].records[-1][0] >= told["rows"][-1]["time"]
    assert found.rings[1].records  # the minute that was not over
    assert sum(ring.bad + ring.lost for ring in found.rings) == 0
    shown = launch(sys.executable, "-m", "diagnostics", "blackbox", told["recorder"]["file"])
    assert shown.process.wait(60) == 0
    assert "It was ended by SIGKILL" in shown.output


def test_a_killed_monitor_leaves_a_recording_that_the_next_one_continues(
    launch: Any, free_port: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(APP, encoding="utf-8")
    folder = {"DIAGNOSTICS_DIR": str(tmp_path / "dir"), **FAST}
    service = launch(
        sys.executable, "-m", "uvicorn", "service:app", "--port", str(free_port()), env=folder, cwd=tmp_path
    )
    service.wait_for("Uvicorn running")

    def monitor() -> Any:
        found = launch(sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", env=folder)
        found.monitor = found.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
        eventually(lambda: last_row(http, found).get("in_use_bytes"))
        return found

    first = monitor()
    first.end(signal.SIGKILL)
    (file,) = (tmp_path / "dir" / "blackbox").iterdir()
    before = decode(file.read_bytes())
    assert sum(ring.bad + ring.lost for ring in before.rings) == 0
    assert before.end is None
    second = monitor()
    # Compared as text, since what is not known is not equal to itself.
    known = set(map(repr, before.rings[0].records))
    eventually(lambda: known < set(map(repr, decode(file.read_bytes()).rings[0].records)))
    assert len(list(file.parent.iterdir())) == 1
    # The service is not the monitor's child, but a process that was not yet waited for tells its exit all the same.
    service.process.kill()
    os.waitid(os.P_PID, service.process.pid, os.WEXITED | os.WNOWAIT)
    ended = eventually(lambda: decode(file.read_bytes()).end)
    assert ended["returncode"] == -signal.SIGKILL
    assert second.end() == 0


def test_what_a_client_does_not_read_is_recorded_by_the_layer_that_holds_it(
    observed: Any, http: Any, eventually: Any
) -> None:
    service = observed(APP.replace("ledger = instrument(app)", ""), env=FAST)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /stream?n=1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # No ledger here: the server tells that a response is open.
        row = eventually(
            lambda: (
                (found := last_row(http, service)).get("buffered_transport_bytes")
                and found["buffered_kernel_bytes"]
                and found
            )
        )
        assert row["open_streams"] == 1
        assert row["buffered_app_bytes"] is None
    eventually(lambda: last_row(http, service).get("open_streams") == 0)


def test_a_stopped_service_is_recorded_from_outside(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP, env=FAST)
    eventually(lambda: last_row(http, service).get("in_use_bytes"))
    pid = timeline(http, service)["process"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        row = eventually(lambda: (found := last_row(http, service)).get("agent_answers") == 0 and found)
        assert row["rss_bytes"] > 0
        assert row["in_use_bytes"] is None
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: last_row(http, service).get("agent_answers") == 1)


def test_a_stuck_loop_is_seen_while_it_is_stuck(observed: Any, http: Any, eventually: Any) -> None:
    import threading

    service = observed(APP, env=FAST)
    eventually(lambda: last_row(http, service).get("in_use_bytes"))
    stuck = threading.Thread(target=http, args=(f"{service.url}/block?seconds=2",))
    stuck.start()
    # The loop sleeps without the GIL: the agent answers, and says how long its ping has been waiting.
    eventually(lambda: (last_row(http, service).get("loop_pending_seconds") or 0) > 0.2)
    stuck.join()
    eventually(lambda: last_row(http, service).get("loop_pending_seconds") == 0)


def test_recording_can_be_switched_off(tmp_path: Path) -> None:
    targets = Targets(tmp_path)
    targets.watch(os.getpid())
    recorder = Recorder.below(tmp_path, targets, RecordSettings(seconds=0.0))
    asyncio.run(recorder.run())  # ends at once
    with pytest.raises(NotFoundError, match="set DIAGNOSTICS_RECORD_SECONDS above 0"):
        recorder.recording(targets.workers()[0])
    assert [path.name for path in tmp_path.iterdir()] == [
        "workers.json"
    ]  # the numbers of the workers, and nothing else


def test_settings_are_of_a_size_that_stays_small() -> None:
    assert RecordSettings().rings == (RingSize(1.0, 3600), RingSize(60.0, 1440))
    fields = tuple((field.name, field.unit) for field in FIELDS)
    assert Header(fields, RecordSettings().rings, {}).file_bytes < 1_600_000


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


class Inside:
    """A recorder of one process, without a monitor around it."""

    def __init__(self, root: Path, pid: int) -> None:
        (root / "agents").mkdir(parents=True, exist_ok=True)
        self.targets = Targets(root)
        self.targets.watch(pid)
        self.recorder = Recorder(self.targets, RecordSettings(seconds=60.0), BlackBox(root, keep=3))
        self.files = root / "blackbox"

    def read(self) -> Recording:
        (file,) = self.files.iterdir()
        return decode(file.read_bytes())


def test_an_end_that_only_a_parent_was_told_of_is_written_down_later(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    inside = Inside(tmp_path, sleeper.pid)

    async def scene() -> None:
        await inside.recorder.look()
        sleeper.terminate()
        sleeper.wait()
        await inside.recorder.look()
        assert "exit status is not known" in (inside.read().end or {})["said"]
        inside.recorder.exited(sleeper.pid, -15)
        assert "ended by SIGTERM" in (inside.read().end or {})["said"]
        await inside.recorder.close()

    asyncio.run(scene())
    with pytest.raises(NotFoundError):
        inside.targets.worker("0")


def test_an_end_before_the_first_look_is_written_down(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    inside = Inside(tmp_path, sleeper.pid)

    async def scene() -> None:
        inside.recorder.watch(sleeper.pid)
        sleeper.kill()
        sleeper.wait()
        inside.recorder.exited(sleeper.pid, -9)
        await inside.recorder.close()

    asyncio.run(scene())
    assert (inside.read().end or {})["said"].startswith("It was ended by SIGKILL")
    assert [told.pid for told in inside.recorder.endings()] == [sleeper.pid]


def test_a_recorder_that_closes_beside_a_living_worker_writes_no_end(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    inside = Inside(tmp_path, sleeper.pid)

    async def scene() -> None:
        await inside.recorder.look()
        await inside.recorder.look()
        assert inside.recorder.outlook(sleeper.pid) is not None
        assert inside.recorder.outlook(1) is None
        await inside.recorder.close()

    asyncio.run(scene())
    found = inside.read()
    assert found.end is None
    assert [len(ring.records) for ring in found.rings] == [2, 1]
    assert math.isnan(found.rings[0].records[0][index_of("in_use_bytes")])


def test_a_look_that_fails_is_logged_once_and_the_next_one_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Targets):
        looks = 0

        def workers(self) -> list[Any]:
            self.looks += 1
            raise RuntimeError("no such luck")

    targets = Broken(tmp_path)
    recorder = Recorder(targets, RecordSettings(interval=0.001), BlackBox(tmp_path, keep=3))

    async def scene() -> None:
        running = asyncio.create_task(recorder.run())
        while targets.looks < 3:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with caplog.at_level(logging.ERROR):
        asyncio.run(scene())
    assert [record.message for record in caplog.records] == [
        "a look of the recorder failed, and the next one is due all the same"
    ]


def test_a_minute_keeps_the_worst_of_its_seconds_and_the_last_of_its_totals() -> None:
    def record(time: float, rss: float, events: float, answers: float) -> tuple[float, ...]:
        told = {"time": time, "rss_bytes": rss, "events_total": events, "agent_answers": answers}
        return tuple(told.get(field.name, math.nan) for field in FIELDS)

    minute = fold([record(1, 10, 5, 1), record(2, 30, 7, 0), record(3, 20, math.nan, 1)])
    assert minute[:2] == (3, 30)
    assert minute[index_of("events_total")] == 7
    assert minute[index_of("agent_answers")] == 0
    assert math.isnan(minute[index_of("tasks")])


def test_fields_are_each_named_once_and_metrics_too() -> None:
    assert len({field.name for field in FIELDS}) == len(FIELDS)
    assert len({spec.name for spec in METRICS}) == len(METRICS)


def test_the_cpu_time_of_another_process_is_read_finer_than_the_kernel_prints_it(
    sleeper: subprocess.Popen[bytes],
) -> None:
    before = cpu_seconds(os.getpid())
    own = time.process_time()
    after = cpu_seconds(os.getpid())
    assert before is not None
    assert after is not None
    assert before <= own <= after
    used = cpu_seconds(sleeper.pid)
    process = read_process(sleeper.pid)
    assert used is not None
    assert process is not None
    assert used == pytest.approx(process.cpu_seconds, abs=0.1)
    assert cpu_seconds(2**22 + 1) is None


def test_who_a_process_is_and_how_a_zombie_ended() -> None:
    found = identity(os.getpid())
    assert found is not None
    assert found[0].pid == os.getpid()
    assert abs(found[1] - time.time()) < 24 * 3600
    assert lives(found[0])
    assert not lives(replace(found[0], start_ticks=found[0].start_ticks + 1))  # its pid is another's now
    assert identity(2**22 + 1) is None
    assert not alive(2**22 + 1)
    assert exit_status(os.getpid()) is None
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    status = exit_status(ended.pid)
    assert not alive(ended.pid)
    assert ended.wait() == 7
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_record_of_a_process_without_agent_or_cgroup_holds_what_is_known() -> None:
    process = read_process(os.getpid())
    assert process is not None
    record = vitals(5.0, process, None, None, None)
    known = {field.name for field, value in zip(FIELDS, record, strict=True) if not math.isnan(value)}
    assert known == {
        "time",
        "rss_bytes",
        "mapped_bytes",
        "shared_bytes",
        "threads",
        "fds",
        "cpu_seconds",
        "agent_answers",
    }
