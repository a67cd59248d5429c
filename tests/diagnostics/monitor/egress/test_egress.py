"""Egress at work: in this process over a folder, and under real monitors whose store refuses, is silent, or that are killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.cli import main
from diagnostics.monitor.audit import Audit
from diagnostics.monitor.captures.kept.store import Store
from diagnostics.monitor.egress.destination import Destination
from diagnostics.monitor.egress.egress import Egress
from diagnostics.monitor.egress.settings import EgressSettings
from diagnostics.monitor.recording.blackbox import Ending
from diagnostics.monitor.recording.endings import WorkerEnd
from tests.s3 import ACCESS_KEY, S3, SECRET, Gate

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
QUICK = {"DIAGNOSTICS_EGRESS_TIMEOUT_SECONDS": "1"}


# --- in this process ---


class Bench:
    """A store of captures, and an Egress over a folder that an earlier one may have left."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "dir")
        self.ends: list[WorkerEnd] = []
        self.evidence = root / "evidence"

    def keep(self, by: str = "a request", size: int = 10, state: str = "done") -> dict[str, Any]:
        capture_id, folder = self.store.new("objects")
        if state == "done":
            (folder / "profile.json").write_bytes(os.urandom(size))
        return self.store.publish(
            capture_id,
            {
                "id": capture_id, "kind": "objects", "worker": "0", "pid": 1, "created": time.time(), "state": state,
                "progress": 1.0, "options": {}, "error": None, "result": None, "by": by,
            },
        )  # fmt: skip

    def egress(self, url: str = "", **settings: Any) -> Egress:
        place = Destination.parse(url or f"file://{self.evidence}", "URL")
        audit = Audit(self.root / "dir/audit.log")
        given = EgressSettings(destination=place, **settings)
        return Egress(self.root / "dir", given, self.store, lambda: self.ends, audit)

    def run(self, egress: Egress, until: Callable[[], bool]) -> None:
        """Let it work until something is so, and end it as a monitor does."""

        async def work() -> None:
            running = asyncio.create_task(egress.run())
            deadline = time.monotonic() + 60
            while not until():
                assert time.monotonic() < deadline, egress.to_json()
                assert not running.done()
                await asyncio.sleep(0.01)
            await egress.close(running)

        asyncio.run(work())

    def sent(self) -> dict[str, Any]:
        """The manifests in the folder by their ids, in the order in which they came."""
        found = sorted(self.evidence.rglob("manifest.json"), key=lambda path: path.stat().st_mtime_ns)
        manifests = [json.loads(path.read_text(encoding="utf-8")) for path in found]
        for path, manifest in zip(found, manifests, strict=True):
            for artifact in manifest["artifacts"]:
                content = (path.parent / artifact["name"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == artifact["sha256"]
            assert path.parent.parts[-3:] == (manifest["service"], manifest["host"], manifest["id"])
        return {manifest["id"]: manifest for manifest in manifests}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_finished_captures_are_sent_those_of_rules_first_with_what_they_are(bench: Bench) -> None:
    egress = bench.egress(service="orders api")
    asked, looked, ruled = (bench.keep(by) for by in ("a request", "the verdict", "rule limit-near"))
    failed = bench.keep(state="failed")
    for capture in (asked, looked, ruled, failed):
        egress.published(capture)
        egress.published(capture)  # twice is once
    bench.run(egress, lambda: egress.to_json()["sent"] == 3)
    sent = bench.sent()
    assert list(sent) == [ruled["id"], looked["id"], asked["id"]]
    manifest = sent[ruled["id"]]
    assert manifest["schema"] == "highwater.egress/1"
    assert manifest["by"] == "rule limit-near"
    assert manifest["service"] == "orders-api"
    assert manifest["host"]
    assert manifest["artifacts"] == ruled["artifacts"]
    assert egress.state_of(asked["id"]) == {"state": "sent", "tries": 0, "error": None}
    assert egress.state_of(failed["id"]) is None
    counts = egress.counts_of("0")
    assert counts.ended == {"sent": 3, "failed": 0, "dropped": 0, "lost": 0}
    assert counts.bytes == sum(path.stat().st_size for path in bench.evidence.rglob("*") if path.is_file())
    assert egress.counts_of("1").ended["sent"] == 0
    noted = [json.loads(line) for line in (bench.root / "dir/audit.log").read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line["outcome"], line["capture"]) for line in noted] == [
        ("egress", "sent", capture["id"]) for capture in (ruled, looked, asked)
    ]


def test_what_an_earlier_monitor_kept_and_did_not_write_down_is_found_and_what_was_before_egress_is_not(
    bench: Bench,
) -> None:
    before = bench.keep()
    first = bench.egress()
    bench.run(first, lambda: True)
    after = bench.keep()  # published, and the monitor is killed before the queue's file is written
    second = bench.egress()
    bench.run(second, lambda: second.to_json()["sent"] == 1)
    assert list(bench.sent()) == [after["id"]]
    assert second.state_of(before["id"]) is None
    third = bench.egress()
    bench.run(third, lambda: True)
    assert third.to_json()["sent"] == 0  # since it began: nothing is sent again
    assert third.state_of(after["id"]) == {"state": "sent", "tries": 0, "error": None}


def test_what_was_deleted_before_it_was_sent_is_told_as_lost(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    egress = bench.egress()
    capture = bench.keep()
    egress.published(capture)
    bench.store.delete(capture["id"])
    with caplog.at_level(logging.ERROR):
        bench.run(egress, lambda: egress.to_json()["lost"] == 1)
    assert f"{capture['id']} is not sent (lost)" in caplog.text
    assert bench.sent() == {}


def test_what_is_over_the_quota_waits_and_says_so(bench: Bench) -> None:
    egress = bench.egress(bytes_a_day=3000)
    first, second, large = bench.keep(size=2000), bench.keep(size=2000), bench.keep(size=4000)
    for capture in (first, second, large):
        egress.published(capture)
    bench.run(egress, lambda: egress.to_json()["sent"] == 1)
    assert list(bench.sent()) == [first["id"]]
    assert egress.state_of(second["id"]) == {"state": "waiting", "tries": 0, "error": None}
    assert "3000 bytes of this day are spent" in egress.to_json()["failing"]
    told = egress.state_of(large["id"])
    assert told is not None
    assert told["state"] == "failed"
    assert "DIAGNOSTICS_EGRESS_BYTES_A_DAY" in told["error"]
    again = bench.egress(bytes_a_day=3000)
    bench.run(again, lambda: True)
    assert again.to_json()["waiting"] == 1  # a monitor that is started anew has no new day


def test_an_end_is_sent_with_its_recording_and_once_more_when_its_exit_status_is_known(bench: Bench) -> None:
    egress = bench.egress()
    recording = bench.root / "dir/blackbox/20261129T131400Z-7.ring"
    recording.parent.mkdir()
    recording.write_bytes(b"a recording")
    noticed = time.time() + 1.25
    ending = Ending(noticed, None, 1, None, 100, 90)
    bench.ends.append(WorkerEnd("0", 7, ending, "Objects are retained", recording))
    bench.run(egress, lambda: egress.to_json()["sent"] == 1)
    ((upload_id, manifest),) = bench.sent().items()
    assert upload_id.endswith("-blackbox")
    assert (manifest["what"], manifest["worker"], manifest["end"]["oom"]) == ("recording", "0", True)
    assert manifest["end"]["verdict"] == "Objects are retained"
    recording.write_bytes(b"a recording, explained")
    bench.ends[0] = WorkerEnd("0", 7, Ending(noticed, -9, 1, None, 100, 90), "", recording)
    again = bench.egress()
    bench.run(again, lambda: again.to_json()["sent"] == 1)
    ((_, manifest),) = bench.sent().items()
    assert manifest["end"]["returncode"] == -9


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_an_error_that_says_so(bench: Bench) -> None:
    egress = bench.egress()
    bench.evidence.chmod(0o500)
    egress.published(bench.keep())
    bench.run(egress, lambda: egress.to_json()["failing"] is not None)
    assert "may not write" in egress.to_json()["failing"]
    bench.evidence.chmod(0o700)


def test_a_queue_that_cannot_be_written_keeps_nothing_from_being_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    egress = bench.egress()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(egress._spool, "save", full)
    egress.published(bench.keep())
    with caplog.at_level(logging.WARNING):
        bench.run(egress, lambda: egress.to_json()["sent"] == 1)
    assert [record.getMessage().count("cannot be written") for record in caplog.records].count(1) == 1


def test_tries_that_fail_are_told_once_and_given_up_at_last(
    bench: Bench, s3: S3, s3_gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in s3.environment(s3_gate.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("diagnostics.monitor.egress.queue._FIRST_SECONDS", 0.01)
    s3_gate.mode = "refuse"
    egress = bench.egress(f"s3://{s3.bucket()}/x", tries=3)
    capture = bench.keep()
    egress.published(capture)
    with caplog.at_level(logging.WARNING):
        bench.run(egress, lambda: egress.to_json()["failed"] == 1)
    assert caplog.text.count("it is tried again (1 of 3)") == 1
    assert "(2 of 3)" not in caplog.text
    assert f"{capture['id']} is not sent (failed)" in caplog.text
    assert "403 (AccessDenied)" in caplog.text
    for secret in (ACCESS_KEY, SECRET):
        assert secret not in caplog.text
        assert secret not in (bench.root / "dir/egress/queue.json").read_text(encoding="utf-8")
    told = egress.state_of(capture["id"])
    assert told is not None
    assert (told["state"], told["tries"]) == ("failed", 3)
    assert egress.counts_of("0").failed_tries == 3


# --- under real monitors ---


def answering(http: Any, eventually: Any, monitor: str) -> None:
    eventually(
        lambda: [each for each in http(f"{monitor}/debug/memory").json()["workers"] if each["state"] == "answering"]
    )


def capture_of(http: Any, eventually: Any, monitor: str) -> dict[str, Any]:
    """A capture with several artifacts, finished."""
    begun = http(f"{monitor}/debug/memory/captures", "POST", {"kind": "tasks", "force": True})
    assert begun.status == 202, begun.json()
    url = f"{monitor}/debug/memory/captures/{begun.json()['id']}"
    done: dict[str, Any] = eventually(lambda: (found := http(url).json())["state"] in ("done", "failed") and found)
    assert done["state"] == "done", done
    assert len(done["artifacts"]) >= 2
    return done


def shown(http: Any, monitor: str, capture_id: str) -> Any:
    return http(f"{monitor}/debug/memory/captures/{capture_id}").json()["egress"]


def counted(http: Any, monitor: str) -> dict[str, float]:
    lines = http(f"{monitor}/metrics").body.decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("diagnostics_egress")}


def monitor_of(supervisor: Any) -> int:
    """The pid of the monitor of `diagnostics run`: the child that leads a process group of its own."""
    pid = supervisor.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    (found,) = [int(child) for child in children if os.getpgid(int(child)) == int(child)]
    return found


def test_a_store_that_refuses_is_said_without_a_credential_and_taken_up_again(
    observed: Any, s3: S3, s3_gate: Gate, http: Any, eventually: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket = s3.bucket()
    s3_gate.mode = "refuse"
    environment = {"DIAGNOSTICS_EGRESS_URL": f"s3://{bucket}/prod", **s3.environment(s3_gate.url)}
    service = observed(APP, env=environment)
    answering(http, eventually, service.monitor)
    capture = capture_of(http, eventually, service.monitor)
    told = eventually(lambda: (state := shown(http, service.monitor, capture["id"]))["tries"] and state)
    assert told["state"] == "waiting"
    assert "it answered 403 (AccessDenied)" in told["error"]
    counts = counted(http, service.monitor)
    assert counts['diagnostics_egress_waiting{worker="0"}'] == 1
    assert counts['diagnostics_egress_failed_tries_total{worker="0"}'] >= 1
    overview = http(f"{service.monitor}/debug/memory").json()
    assert overview["captures"][0]["egress"]["state"] in ("waiting", "sending")
    capfd.readouterr()
    main(["status", service.monitor])
    status = capfd.readouterr().out
    assert f"egress to s3://{bucket}/prod: 1 waiting" in status
    assert "403 (AccessDenied)" in status
    s3_gate.mode = "pass"
    eventually(lambda: shown(http, service.monitor, capture["id"])["state"] == "sent")
    assert counted(http, service.monitor)['diagnostics_egress_uploads_total{outcome="sent",worker="0"}'] == 1
    assert len(s3.keys(bucket)) == len(capture["artifacts"]) + 1
    service.supervisor.wait_for("takes uploads again")
    main(["status", service.monitor])
    assert "egress" not in capfd.readouterr().out
    service.supervisor.end(signal.SIGTERM)
    everything = service.supervisor.output + status + json.dumps([told, overview])
    for secret in (ACCESS_KEY, SECRET):
        assert secret not in everything


def test_a_silent_store_holds_up_neither_captures_nor_metrics_nor_the_end(
    observed: Any, s3: S3, http: Any, eventually: Any, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = s3.environment(f"http://127.0.0.1:{silent.getsockname()[1]}")
        service = observed(APP, env={"DIAGNOSTICS_EGRESS_URL": "s3://evidence/prod", **QUICK, **environment})
        answering(http, eventually, service.monitor)
        first = capture_of(http, eventually, service.monitor)
        eventually(lambda: shown(http, service.monitor, first["id"])["state"] == "sending")
        second = capture_of(http, eventually, service.monitor)
        assert counted(http, service.monitor)['diagnostics_egress_waiting{worker="0"}'] == 2
        told = eventually(lambda: shown(http, service.monitor, second["id"])["error"])
        assert "it did not answer in time" in told
        service.supervisor.end(signal.SIGTERM)
        assert "2 uploads wait for the next monitor" in service.supervisor.output
    left = json.loads((tmp_path / "dir/egress/queue.json").read_text(encoding="utf-8"))
    assert {each["id"]: each["state"] for each in left["uploads"]} == {first["id"]: "waiting", second["id"]: "waiting"}


def test_a_monitor_that_is_killed_in_the_middle_leaves_the_rest_to_the_next_and_it_arrives_once(
    observed: Any, launch: Any, s3: S3, s3_gate: Gate, http: Any, eventually: Any, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    s3_gate.mode, s3_gate.let = "hold", 1  # the first file arrives, the second is sent and not answered
    environment = {"DIAGNOSTICS_EGRESS_URL": f"s3://{bucket}", **s3.environment(s3_gate.url)}
    service = observed(APP, env=environment)
    answering(http, eventually, service.monitor)
    capture = capture_of(http, eventually, service.monitor)
    eventually(lambda: s3_gate.held == 1)
    assert len(s3.keys(bucket)) == 1
    os.kill(monitor_of(service.supervisor), signal.SIGKILL)
    service.supervisor.wait_for("the monitor has ended; the service goes on without it")
    s3_gate.mode = "pass"
    folder = str(tmp_path / "dir")
    second = launch(
        sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", folder, env=environment
    )  # fmt: skip
    monitor = second.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    eventually(lambda: shown(http, monitor, capture["id"])["state"] == "sent")
    keys = s3.keys(bucket)
    assert {key.rpartition("/")[2] for key in keys} == {each["name"] for each in capture["artifacts"]} | {
        "manifest.json"
    }
    assert len(keys) == len(capture["artifacts"]) + 1
    assert set(s3_gate.puts.values()) == {1}, s3_gate.puts  # not even the first file was sent twice
    for artifact in capture["artifacts"]:
        (key,) = [key for key in keys if key.endswith(f"/{artifact['name']}")]
        assert hashlib.sha256(s3.get(bucket, key)).hexdigest() == artifact["sha256"]


def test_a_worker_that_is_killed_leaves_its_recording_although_its_monitor_ends_with_it(
    launch: Any, tmp_path: Path, eventually: Any
) -> None:
    evidence = tmp_path / "evidence"
    script = "import os, time\nprint('ready', os.getpid(), flush=True)\ntime.sleep(600)"
    supervisor = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", sys.executable, "-c", script,
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_EGRESS_URL": f"file://{evidence}"},
    )  # fmt: skip
    worker = int(supervisor.wait_for("ready").split()[1])
    eventually(lambda: list((tmp_path / "dir/blackbox").glob("*.ring")))
    os.kill(worker, signal.SIGKILL)
    assert supervisor.process.wait(60) == -signal.SIGKILL
    (manifest,) = eventually(lambda: list(evidence.rglob("manifest.json")))
    told = json.loads(manifest.read_text(encoding="utf-8"))
    assert (told["pid"], told["end"]["returncode"]) == (worker, -signal.SIGKILL)
    done = subprocess.run(
        [sys.executable, "-m", "diagnostics", "blackbox", f"file://{manifest.parent}"],
        check=False, capture_output=True, encoding="utf-8", timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"pid {worker}" in done.stdout
    assert "It was ended by SIGKILL" in done.stdout


def test_a_store_that_cannot_be_used_is_refused_at_the_start(launch: Any, tmp_path: Path) -> None:
    for url in ("s3://key:hush@evidence", "ftp://evidence"):
        started = launch(
            sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", str(tmp_path / "dir"),
            env={"DIAGNOSTICS_EGRESS_URL": url},
        )  # fmt: skip
        assert started.process.wait(60) == 2
        assert "DIAGNOSTICS_EGRESS_URL" in started.output
        assert "hush" not in started.output
