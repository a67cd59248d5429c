"""Two relays behind a real nginx, set up as docs/relay.md says, and restarted one after the other under load."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nginx import addresses, whole_file

pytestmark = [pytest.mark.e2e, pytest.mark.needs("nginx", "nginx")]

MANUAL = Path(__file__).parents[2] / "docs" / "relay.md"
Launched = Any  # the fixtures are typed in conftest.py
CLIENTS = 6


def configuration(folder: Path, port: int, relays: list[int]) -> Path:
    """The manual's nginx configuration with the addresses of this test, as a whole file."""
    (block,) = re.findall(r"```nginx\n(.*?)```", MANUAL.read_text(encoding="utf-8"), re.DOTALL)
    return whole_file(folder, block, addresses(port, relays), more="access_log off;")


class Load(threading.Thread):
    """One client: streams of about a second, one after the other, until it is told to stop."""

    def __init__(self, url: str, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopping = stopping
        self.whole = 0
        self.lost: list[str] = []

    def run(self) -> None:
        body = json.dumps({"model": "sim:events=20,pace=20,first=0.05", "messages": [], "stream": True}).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._stopping.is_set():
            request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
            try:
                with opener.open(request, timeout=60) as answer:
                    text = answer.read()
            except OSError as error:
                self.lost.append(repr(error))
                continue
            if text.endswith(b"data: [DONE]\n\n") and text.count(b"data: ") == 23:
                self.whole += 1
            else:
                self.lost.append(text[-300:].decode(errors="replace"))


def test_a_rolling_restart_loses_no_stream(
    launch: Callable[..., Launched], free_port: Callable[[], int], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    simulator = launch(sys.executable, "-m", "relay.simulator")
    upstream = simulator.wait_for("simulator http").split()[1]

    def start_relay(port: int) -> Launched:
        relay = launch(
            sys.executable, "-m", "relay", "serve", "--port", str(port), "--no-diagnostics", "--drain-seconds", "60",
            env={"RELAY_UPSTREAM_BASE_URL": upstream}, cwd=tmp_path,
        )  # fmt: skip
        relay.wait_for("upstream http", patience=60)
        return relay

    ports = [free_port(), free_port()]
    relays = [start_relay(port) for port in ports]
    front = free_port()
    nginx = launch("nginx", "-p", tmp_path, "-c", configuration(tmp_path, front, ports))
    url = f"http://127.0.0.1:{front}/v1/chat/completions"
    eventually((tmp_path / "nginx.pid").exists)
    stopping = threading.Event()
    clients = [Load(url, stopping) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
        time.sleep(0.15)  # so that streams begin and end at all times

    def each_had_another(patience: float = 60) -> None:
        before = [client.whole + len(client.lost) for client in clients]
        eventually(
            lambda: all(client.whole + len(client.lost) > was for client, was in zip(clients, before, strict=True)),
            patience,
        )

    each_had_another()
    for number, port in enumerate(ports):
        relays[number].process.send_signal(signal.SIGTERM)
        assert relays[number].process.wait(60) == 0
        each_had_another()  # with one relay
        relays[number] = start_relay(port)
        each_had_another()
    stopping.set()
    for client in clients:
        client.join(60)
    assert [loss for client in clients for loss in client.lost] == []
    assert all(client.whole >= 5 for client in clients)
    assert nginx.process.poll() is None
