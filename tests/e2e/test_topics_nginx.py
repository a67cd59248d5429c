"""Topics behind a real nginx, set up as docs/deploy says: subscribers resume at another relay, whatever becomes of theirs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nginx import configuration

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.needs("nginx", "nginx"),
    pytest.mark.needs("redis-server", "redis-server"),
]

Launched = Any  # the fixtures are typed in conftest.py
NAME = "/v1/topics/news"


def test_subscribers_go_on_through_kills_and_restarts(
    launch: Callable[..., Launched],
    free_port: Callable[[], int],
    http: Callable[..., Any],
    subscribe: Callable[..., Any],
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    redis = launch("redis-server", "--port", str(store := free_port()), "--bind", "127.0.0.1", "--save", "")
    redis.wait_for("Ready to accept connections")

    def start(port: int) -> Launched:
        relay = launch(
            sys.executable, "-m", "relay", "serve", "--port", str(port), "--no-diagnostics", "--drain-seconds", "1",
            env={
                "RELAY_REDIS_URL": f"redis://127.0.0.1:{store}/0",
                "RELAY_UPSTREAM_BASE_URL": "http://127.0.0.1:9/v1",
                "RELAY_HEARTBEAT_SECONDS": "0.5",
            },
            cwd=tmp_path,
        )  # fmt: skip
        relay.wait_for("upstream http", 60)
        return relay

    ports = [free_port(), free_port()]
    relays = [start(port) for port in ports]
    front = f"http://127.0.0.1:{(door := free_port())}"
    nginx = launch("nginx", "-e", "stderr", "-p", tmp_path, "-c", configuration(tmp_path, door, ports))
    eventually(lambda: (tmp_path / "nginx.pid").exists())
    ones = [subscribe(front + NAME, again=True) for _ in range(10)]
    eventually(lambda: all(one.raw for one in ones))
    sent: list[str] = []

    def publish(events: int) -> None:
        for _ in range(events):
            data = str(len(sent))
            while http(front + NAME, "POST", json.dumps(int(data)).encode()).status != 201:
                pass  # refused by a relay that is down: nginx did not ask the other, as the event may have been kept
            sent.append(data)

    publish(20)
    os.killpg(relays[0].process.pid, signal.SIGKILL)
    publish(20)
    eventually(lambda: all(one.data[-1:] == sent[-1:] for one in ones))
    relays[0] = start(ports[0])
    # An orderly end: they are told, and go to the other one.
    relays[1].process.send_signal(signal.SIGTERM)
    publish(20)
    assert relays[1].process.wait(60) == 0
    publish(5)
    eventually(lambda: all(one.data[-1:] == sent[-1:] for one in ones))
    for one in ones:
        assert list(dict.fromkeys(one.data)) == sent
        assert one.told("gap") == []
        # What was published twice is the publisher's doing, who asked twice; no event came twice.
        ids = [event.id for event in one.events if event.event == "message"]
        assert len(set(ids)) == len(ids)
    assert nginx.process.poll() is None
