"""`relay serve --workers 2`: one port and one monitor, a worker that dies is replaced, and SIGTERM drains all."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.errors import ChildError
from relay.serving.supervisor import Supervisor
from relay.settings import load

Served = Any  # the fixtures are typed in conftest.py
Start = Any
Eventually = Callable[[Callable[[], Any]], None]


def monitor_of(relay: Served) -> dict[str, Any]:
    request = urllib.request.Request(relay.lines[1].split()[1], headers={"Accept": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return dict(json.load(answer))


def workers_of(relay: Served) -> dict[int, dict[str, Any]]:
    """The monitor's workers by pid, as soon as they answer."""
    return {row["pid"]: row for row in monitor_of(relay)["workers"] if row["state"] == "answering"}


def worker_pids(relay: Served) -> set[int]:
    children = Path(f"/proc/{relay.process.pid}/task/{relay.process.pid}/children").read_text(encoding="utf-8").split()
    return {
        int(pid)
        for pid in children
        if "relay.serving.worker" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    }


def open_in(workers: dict[int, dict[str, Any]]) -> dict[int, int]:
    return {pid: row["ledger"]["open"] for pid, row in workers.items()}


@pytest.fixture
def relay(start: Start, eventually: Eventually) -> Served:
    served = start("--workers", "2", "--diagnostics", "127.0.0.1:0")
    eventually(lambda: set(workers_of(served)) == worker_pids(served))
    return served


def stream_in_each(relay: Served) -> list[socket.socket]:
    """Streams, opened until each worker has one: the kernel gives a connection to whoever accepts it first."""
    connections: list[socket.socket] = []
    for _ in range(200):
        connections.append(relay.open("sim:events=inf,pace=20,first=0"))
        assert connections[-1].recv(10)
        if all(open_in(workers_of(relay)).values()):
            return connections
    raise AssertionError("one worker got 200 connections, the other none")


def goes_on(connection: socket.socket) -> bool:
    try:
        return all(connection.recv(65536) for _ in range(5))
    except ConnectionResetError:
        return False


def test_a_killed_worker_is_replaced_and_the_streams_of_the_other_go_on(relay: Served, eventually: Eventually) -> None:
    assert len(worker_pids(relay)) == 2
    connections = stream_in_each(relay)
    try:
        # The monitor shares a reading for a moment: only one that knows of all streams says who has which.
        eventually(lambda: sum(open_in(workers_of(relay)).values()) == len(connections))
        before = workers_of(relay)
        victim, survivor = sorted(before)
        counts = open_in(before)
        os.kill(victim, signal.SIGKILL)
        assert sum(goes_on(connection) for connection in connections) == counts[survivor]
        eventually(lambda: len(workers_of(relay)) == 2)
        after = workers_of(relay)
        assert survivor in after
        assert victim not in after
        # Its number is free, so that the label `worker` has no more values than there are workers.
        assert {row["worker"] for row in after.values()} == {"0", "1"}
        assert after[survivor]["worker"] == before[survivor]["worker"]
        assert f"worker {victim} has ended with signal 9" in relay.log()
        for _ in range(4):
            assert relay.chat("sim:events=2,pace=0").events[-1] == "[DONE]"
    finally:
        for connection in connections:
            connection.close()
    assert relay.terminate() == 0


def test_sigterm_lets_the_streams_of_all_workers_finish(start: Start, eventually: Eventually) -> None:
    # The drain is long, since a worker that has not ended after it is killed, and a busy machine is slow to end one.
    relay = start("--workers", "2", "--no-diagnostics", announced=2, RELAY_DRAIN_SECONDS="60")
    workers = worker_pids(relay)
    connections = [relay.open("sim:events=30,pace=30,first=0") for _ in range(8)]
    received = [connection.recv(65536) for connection in connections]
    relay.process.send_signal(signal.SIGTERM)
    for number, connection in enumerate(connections):
        with connection:
            while chunk := connection.recv(65536):
                received[number] += chunk
    assert all(b"[DONE]" in body for body in received)
    assert relay.process.wait(120) == 0, relay.log()
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(relay.address)


def test_a_second_signal_ends_all_at_once(start: Start) -> None:
    relay = start("--workers", "2", "--no-diagnostics", "--drain-seconds", "600", announced=2)
    with relay.open("sim:events=inf,pace=50,first=0") as connection:
        assert connection.recv(100)
        relay.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            relay.process.wait(0.5)
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.wait(60) == 128 + signal.SIGTERM


def test_workers_end_with_a_supervisor_that_was_killed(start: Start, eventually: Eventually) -> None:
    relay = start("--workers", "2", "--no-diagnostics", announced=2)
    workers = worker_pids(relay)
    assert len(workers) == 2
    assert all(_runs(pid) for pid in workers)
    relay.process.kill()
    relay.process.wait(60)
    eventually(lambda: not [pid for pid in workers if _runs(pid)])


def test_the_supervisor_is_without_the_app_and_no_key_is_in_a_command_line(start: Start) -> None:
    relay = start("--workers", "2", "--no-diagnostics", announced=2, RELAY_UPSTREAM_API_KEY="sk-secret")
    # uvloop is the one part of a serving process that shows in its map of memory and nowhere else in the relay.
    (worker, *_) = worker_pids(relay)
    assert "uvloop" in Path(f"/proc/{worker}/maps").read_text(encoding="utf-8")
    assert "uvloop" not in Path(f"/proc/{relay.process.pid}/maps").read_text(encoding="utf-8")
    for pid in worker_pids(relay):
        assert "sk-secret" not in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    assert relay.chat("sim:events=2,pace=0").events[-1] == "[DONE]"


def test_workers_that_cannot_start_end_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(workers=2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(settings, listener, "http://127.0.0.1:1/v1", None, lambda: None, lambda: None)
        supervisor._handover = b"{}\n"  # which no worker understands
        with pytest.raises(ChildError, match="ended with exit code 1 before it served"):
            supervisor.run()
    assert not supervisor._processes
    assert "KeyError" in capfd.readouterr().err


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
