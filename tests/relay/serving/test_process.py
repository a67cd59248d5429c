"""The relay as a process: its output, its exit codes, and no child processes left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.cli import main

Served = Any
Start = Any
Eventually = Callable[[Callable[[], bool]], None]


def relay_command(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "DIAGNOSTICS_"))}
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        capture_output=True, encoding="utf-8", timeout=250, cwd=cwd, env={**kept, **settings}, check=False,
    )  # fmt: skip


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def test_the_addresses_are_the_first_thing_printed(relay: Served) -> None:
    assert re.fullmatch(r"relay http://127\.0\.0\.1:\d+", relay.lines[0])
    assert re.fullmatch(r"diagnostics http://127\.0\.0\.1:\d+/debug/memory", relay.lines[1])
    assert re.fullmatch(r"upstream http://127\.0\.0\.1:\d+/v1 \(simulator\)", relay.lines[2])
    assert relay.get("/readyz").status == 200


def test_the_monitor_counts_the_relays_streams_and_ends_with_it(start: Start, eventually: Eventually) -> None:
    relay = start("--diagnostics", "127.0.0.1:0")
    children = children_of(relay.process.pid)
    assert len(children) == 2
    relay.chat("sim:events=2,pace=0")
    url = relay.lines[1].split()[1].removesuffix("/debug/memory") + "/metrics"

    def counted(line: str) -> bool:
        with urllib.request.urlopen(url) as answer:
            return line in answer.read().decode()

    eventually(lambda: counted('stream_closed_total{outcome="completed",route="/v1/chat/completions",worker="0"} 1.0'))
    with relay.open("sim:events=inf"):
        eventually(lambda: counted('stream_open_connections{route="/v1/chat/completions",worker="0"} 1.0'))
    eventually(lambda: counted('stream_open_connections{route="/v1/chat/completions",worker="0"} 0.0'))
    assert relay.terminate() == 0
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_and_logs_no_error(
    start: Start, eventually: Eventually, number: signal.Signals
) -> None:
    relay = start("--no-diagnostics", "--drain-seconds", "600", announced=2)
    with relay.open("sim:events=inf"):
        relay.process.send_signal(number)
        eventually(lambda: not listens(relay))
        relay.process.send_signal(number)
        assert relay.process.wait(60) in (0, 128 + number)
    assert "ERROR" not in relay.log()
    assert "Traceback" not in relay.log()


def listens(relay: Served) -> bool:
    try:
        relay.get("/readyz")
    except OSError:
        return False
    return True


def test_a_monitor_that_dies_is_reported_once_and_the_relay_goes_on(start: Start, eventually: Eventually) -> None:
    relay = start("--diagnostics", "127.0.0.1:0")
    commands = {
        child: Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8") for child in children_of(relay.process.pid)
    }
    (monitor,) = [child for child, command in commands.items() if "simulator" not in command]
    os.kill(monitor, signal.SIGKILL)
    eventually(lambda: "the monitor" in relay.log())
    assert relay.chat("sim:events=2,pace=0").events[-1] == "[DONE]"
    assert relay.terminate() == 0
    assert relay.log().count("the monitor") == 1


def test_sigterm_lets_an_open_stream_finish_and_exits_with_0(start: Start) -> None:
    relay = start("--no-diagnostics", announced=2)
    children = children_of(relay.process.pid)
    assert children
    with relay.open("sim:events=40,pace=40,first=0") as connection:
        received = connection.recv(65536)
        relay.process.send_signal(signal.SIGTERM)
        while chunk := connection.recv(65536):
            received += chunk
    assert b"[DONE]" in received
    assert relay.process.wait(60) == 0
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_what_outlasts_the_drain_is_told_and_ended(start: Start, eventually: Eventually) -> None:
    relay = start("--no-diagnostics", "--drain-seconds", "0.3", "--write-timeout-seconds", "600", announced=2)
    with (
        relay.open("sim:events=inf,pace=50,first=0") as streaming,
        relay.open("sim:first=600") as waiting,
        relay.open("sim:events=inf,pace=0,size=4000"),  # never reads: it must not hold the end up
    ):
        received = streaming.recv(65536)
        eventually(lambda: relay.stats()["started"] == 3 and relay.stats()["bytes_sent"] > 500_000)
        relay.process.send_signal(signal.SIGTERM)
        while chunk := streaming.recv(65536):
            received += chunk
        assert b'"code":"shutting_down"' in received
        assert b"[DONE]" not in received
        assert received.endswith(b"0\r\n\r\n")
        assert waiting.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert relay.process.wait(60) == 0
    assert "Traceback" not in relay.log()


def test_a_second_signal_ends_at_once(start: Start) -> None:
    relay = start("--no-diagnostics", "--drain-seconds", "600", announced=2)
    with relay.open("sim:events=inf,pace=50,first=0") as connection:
        assert connection.recv(100)
        relay.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            relay.process.wait(0.5)
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.wait(60) == 128 + signal.SIGTERM


def test_the_simulator_ends_with_a_relay_that_was_killed(start: Start, eventually: Eventually) -> None:
    relay = start("--no-diagnostics", announced=2)
    children = children_of(relay.process.pid)
    assert children
    assert all(_runs(child) for child in children)
    relay.process.kill()
    relay.process.wait(60)
    eventually(lambda: not [child for child in children if _runs(child)])


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_port_in_use_is_a_usage_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = relay_command("serve", "--port", port, cwd=tmp_path)
        assert ended.returncode == 2
        assert f"127.0.0.1:{port}" in ended.stderr
        assert "--port" in ended.stderr
        ended = relay_command("serve", "--port", "0", "--diagnostics", f"127.0.0.1:{port}", cwd=tmp_path)
        assert ended.returncode == 2
        assert f"127.0.0.1:{port}" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["--port", "abc"], {}, ["RELAY_PORT", "flag", "'abc'"]),
        ([], {"RELAY_PORT": "70000"}, ["RELAY_PORT", "70000"]),
        (["--upstream-base-url", "http://127.0.0.1:1"], {}, ["RELAY_UPSTREAM_BASE_URL", "/v1"]),
        ([], {"RELAY_UPSTREAM_BASE_URL": "ftp://there/v1"}, ["RELAY_UPSTREAM_BASE_URL", "http"]),
        ([], {"RELAY_READ_TIMEOUT_SECONDS": "0"}, ["RELAY_READ_TIMEOUT_SECONDS", "greater than 0"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    settings: dict[str, str],
    said: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    for word in said:
        assert word in printed.err


def test_settings_are_read_from_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RELAY_PORT=nowhere\n", encoding="utf-8")
    ended = relay_command("serve", cwd=tmp_path)
    assert ended.returncode == 2
    assert "'nowhere'" in ended.stderr


def test_check_config_prints_what_would_be_served_with_and_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_UPSTREAM_API_KEY", "sk-secret")
    (tmp_path / ".env").write_text("RELAY_PORT=8123\n", encoding="utf-8")
    assert main(["check-config", "--max-streams", "7"]) == 0
    printed = capsys.readouterr().out
    assert {"RELAY_PORT=8123", "RELAY_MAX_STREAMS=7", "RELAY_UPSTREAM_API_KEY=(set)"} <= set(printed.splitlines())
    assert "sk-secret" not in printed
    assert main(["check-config", "--rate-burst", "0"]) == 2
    assert "RELAY_RATE_BURST" in capsys.readouterr().err
