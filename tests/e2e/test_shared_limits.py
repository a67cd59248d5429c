"""Relays that share their limits through a real Redis: together they let in what one of them would, also when one is killed,
and each goes by its own limits while Redis is away."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.needs("redis-server", "redis-server")]

Launched = Any  # the fixtures are typed in conftest.py
Launch = Callable[..., Launched]
Eventually = Callable[..., Any]
Http = Callable[..., Any]

CHAT = "/v1/chat/completions"


def body(model: str) -> bytes:
    return json.dumps({"model": model, "messages": [], "stream": True}).encode()


class Shared:
    """A Redis, a simulator, and relays that share their limits."""

    def __init__(self, launch: Launch, port: int, folder: Path) -> None:
        self._launch = launch
        self._folder = folder
        self.port = port
        simulator = launch(sys.executable, "-m", "relay", "simulate", "--port", "0")
        self.upstream = simulator.wait_for("http://").split()[-1]
        self.redis = self.start_redis()

    def start_redis(self) -> Launched:
        self.redis = self._launch(
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder, "--save", ""
        )
        self.redis.wait_for("Ready to accept connections")
        return self.redis

    def stop_redis(self) -> None:
        self.redis.process.kill()
        self.redis.process.wait()

    def start_relay(self, *flags: str, diagnostics: str = "--no-diagnostics", **settings: str) -> tuple[Launched, str]:
        environment = {
            "RELAY_UPSTREAM_BASE_URL": self.upstream,
            "RELAY_REDIS_URL": f"redis://127.0.0.1:{self.port}/0",
            "RELAY_SHARED_LIMITS": "true",
            "RELAY_SHARED_LIMITS_TIMEOUT_SECONDS": "20",  # a busy machine is no Redis that is away
            "DIAGNOSTICS_DIR": str(self._folder / "d"),
            **settings,
        }
        relay = self._launch(
            sys.executable, "-m", "relay", "serve", "--port", "0", *diagnostics.split(), *flags,
            env=environment, cwd=self._folder,
        )  # fmt: skip
        url = relay.wait_for("relay http", 60).split()[1]
        relay.wait_for("upstream http", 60)
        return relay, url


@pytest.fixture
def shared(launch: Launch, free_port: Callable[[], int], tmp_path: Path) -> Shared:
    return Shared(launch, free_port(), tmp_path)


class Streams:
    """Opens endless streams, and keeps those that were let in."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def open(self, url: str) -> tuple[int, socket.socket]:
        """The status of a stream, and its connection, which is open where the status is 200."""
        parts = urlsplit(url)
        assert parts.hostname
        connection = self._open.enter_context(socket.create_connection((parts.hostname, parts.port or 0), timeout=60))
        asked = body("sim:events=inf,pace=50")
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(asked)}\r\n\r\n"
        connection.sendall(head.encode() + asked)
        status = int(connection.recv(65536).split()[1])
        if status != 200:
            connection.close()
        return status, connection

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def streams() -> Iterator[Streams]:
    opened = Streams()
    yield opened
    opened.close()


def left(answer: Any) -> int:
    match = re.search(r'"requests";r=(\d+)', answer.headers["RateLimit"])
    assert match, answer.headers
    return int(match[1])


def test_two_relays_admit_together_what_one_would(shared: Shared, http: Http) -> None:
    flags = ("--key-rate", "0.001", "--rate-burst", "20")
    urls = [shared.start_relay(*flags)[1], shared.start_relay(*flags, "--workers", "2")[1]]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: http(urls[n % 2] + CHAT, "POST", body("sim:events=1,pace=0")), range(40)))
    admitted = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 429]
    assert (len(admitted), len(refused)) == (20, 20)
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"requests";q=20;w=20000'}
    # What the caller is told is what is left of the whole, whichever relay tells it.
    assert min(map(left, admitted)) == 0
    assert {left(answer) for answer in refused} == {0}
    assert all(900 <= int(answer.headers["Retry-After"]) <= 1000 for answer in refused)


def test_the_rate_of_all_callers_is_shared_too(shared: Shared, http: Http) -> None:
    flags = ("--rate", "0.001", "--rate-burst", "6")
    urls = [shared.start_relay(*flags)[1] for _ in range(2)]
    statuses = [http(urls[n % 2] + CHAT, "POST", body("sim:events=1,pace=0")).status for n in range(10)]
    assert statuses == [200] * 6 + [429] * 4


def test_places_are_counted_over_all_relays_and_given_back_at_once(
    shared: Shared, streams: Streams, eventually: Eventually
) -> None:
    flags = ("--key-max-streams", "3", "--shared-limits-lease-seconds", "3600")
    urls = [shared.start_relay(*flags)[1] for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda n: streams.open(urls[n % 2]), range(8)))
    assert sorted(status for status, _ in opened) == [200] * 3 + [429] * 5
    next(connection for status, connection in opened if status == 200).close()
    # The lease is an hour: the place is free because it was given back, and only one is.
    eventually(lambda: streams.open(urls[0])[0] == 200)
    assert streams.open(urls[1])[0] == 429


def test_the_places_of_a_killed_relay_come_back_when_their_leases_run_out_and_no_others(
    shared: Shared, streams: Streams, eventually: Eventually
) -> None:
    flags = ("--key-max-streams", "3", "--shared-limits-lease-seconds", "5")
    (doomed, first), (_, second) = shared.start_relay(*flags), shared.start_relay(*flags)
    assert [streams.open(url)[0] for url in (first, first, second)] == [200] * 3
    assert streams.open(second)[0] == 429
    os.killpg(doomed.process.pid, signal.SIGKILL)
    doomed.process.wait()
    opened = []
    eventually(lambda: [opened.append(1) for _ in range(5) if streams.open(second)[0] == 200] and len(opened) >= 2)
    # Its own stream is older than a lease by now, and still counts.
    assert len(opened) == 2
    assert streams.open(second)[0] == 429


def test_without_redis_each_relay_goes_by_its_own_limits_and_shares_again_when_it_is_back(
    shared: Shared, streams: Streams, http: Http, eventually: Eventually
) -> None:
    flags = ("--key-max-streams", "2", "--shared-limits-lease-seconds", "3600")
    first, one = shared.start_relay(*flags, diagnostics="--diagnostics 127.0.0.1:0")
    _, two = shared.start_relay(*flags)
    monitor = first.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    assert streams.open(one)[0] == 200
    shared.stop_redis()
    assert [streams.open(one)[0], streams.open(one)[0]] == [200, 429]
    assert [streams.open(two)[0] for _ in range(3)] == [200, 200, 429]
    wanted = r'^limits_shared_up\{worker="0"\} 0\.0$'
    eventually(lambda: re.search(wanted, http(monitor + "/metrics").body.decode(), re.MULTILINE))
    assert first.output.count("limits are those of this relay alone") == 1
    shared.start_redis()
    first.wait_for("limits are shared", 60)
    wanted = wanted.replace("0\\.0", "1\\.0")
    eventually(lambda: re.search(wanted, http(monitor + "/metrics").body.decode(), re.MULTILINE))
    # Those that were let in meanwhile are four, twice as many as there may be, and are known to the new Redis.
    eventually(lambda: b":4\r\n" in command(shared, "ZCARD", "relay:limit:streams:127.0.0.1"))
    assert streams.open(one)[0] == 429


def command(shared: Shared, *words: str) -> bytes:
    """The first reply to a command, as Redis writes it."""
    with socket.create_connection(("127.0.0.1", shared.port), timeout=60) as connection:
        parts = b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)
        connection.sendall(b"*%d\r\n%b" % (len(words), parts))
        return connection.recv(1 << 20)


def test_a_redis_that_stands_still_is_waited_for_once(shared: Shared, http: Http) -> None:
    relay, url = shared.start_relay(
        "--key-rate", "0.001", "--rate-burst", "50", RELAY_SHARED_LIMITS_TIMEOUT_SECONDS="1"
    )
    shared.redis.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        statuses = [http(url + CHAT, "POST", body("sim:events=1,pace=0")).status for _ in range(40)]
        assert statuses == [200] * 40
        assert time.monotonic() - began < 30  # a second for each would be 40
    finally:
        shared.redis.process.send_signal(signal.SIGCONT)
    relay.wait_for("limits are shared", 60)


def test_a_relay_starts_without_redis(shared: Shared, http: Http, eventually: Eventually) -> None:
    shared.stop_redis()
    relay, url = shared.start_relay("--key-rate", "0.001", "--rate-burst", "2")
    statuses = [http(url + CHAT, "POST", body("sim:events=1,pace=0")).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert "limits are those of this relay alone" in relay.output
    # It is ready all the same, and says how it stands.
    ready = http(url + "/readyz")
    assert (ready.status, ready.json()["limits"]) == (200, "redis_away")
    shared.start_redis()
    eventually(lambda: http(url + "/readyz").json()["limits"] == "redis")


def test_sharing_needs_a_redis(launch: Launch, tmp_path: Path) -> None:
    checked = launch(sys.executable, "-m", "relay", "check-config", env={"RELAY_SHARED_LIMITS": "true"}, cwd=tmp_path)
    assert checked.process.wait(60) == 2
    assert "RELAY_REDIS_URL" in checked.output
