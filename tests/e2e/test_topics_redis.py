"""Relays that share their topics through a real Redis, which comes and goes as they do."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.needs("redis-server", "redis-server")]

Launched = Any  # the fixtures are typed in conftest.py
Launch = Callable[..., Launched]
Eventually = Callable[..., Any]
Http = Callable[..., Any]
Subscribe = Callable[..., Any]

NAME = "/v1/topics/news"
SETTINGS = {
    "RELAY_UPSTREAM_BASE_URL": "http://127.0.0.1:9/v1",  # nobody asks it for anything
    "RELAY_REDIS_TIMEOUT_SECONDS": "1",
    "RELAY_HEARTBEAT_SECONDS": "1",
    "RELAY_RETRY_SECONDS": "1",
}


class Shared:
    """A Redis with its data in a folder, and relays that use it."""

    def __init__(self, launch: Launch, free_port: Callable[[], int], folder: Path) -> None:
        self._launch = launch
        self._folder = folder
        self.port = free_port()
        self.redis = self.start_redis()

    def start_redis(self, *, keep: bool = True) -> Launched:
        """Redis with the data of the one before, or without."""
        folder = self._folder / f"redis-{'kept' if keep else time.monotonic_ns()}"
        folder.mkdir(exist_ok=True)
        self.redis = self._launch(
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder, "--save", "",
            "--appendonly", "yes", "--appendfsync", "always",
        )  # fmt: skip
        self.redis.wait_for("Ready to accept connections")
        return self.redis

    def stop_redis(self) -> None:
        self.redis.process.kill()
        self.redis.process.wait()

    def start_relay(self, *flags: str, port: int = 0, **settings: str) -> tuple[Launched, str]:
        environment = {**SETTINGS, "RELAY_REDIS_URL": f"redis://127.0.0.1:{self.port}/0", **settings}
        relay = self._launch(
            sys.executable, "-m", "relay", "serve", "--port", str(port), "--no-diagnostics", *flags,
            env=environment, cwd=self._folder,
        )  # fmt: skip
        return relay, relay.wait_for("relay http", 60).split()[1]

    def command(self, *words: str) -> bytes:
        """The first reply to a command, as Redis writes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            parts = b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n%b" % (len(words), parts))
            return connection.recv(1 << 20)


@pytest.fixture
def shared(launch: Launch, free_port: Callable[[], int], tmp_path: Path) -> Shared:
    return Shared(launch, free_port, tmp_path)


@pytest.fixture
def publish(http: Http) -> Callable[[str, Any], str]:
    def give(url: str, data: Any) -> str:
        answer = http(url + NAME, "POST", json.dumps(data).encode())
        assert answer.status == 201, answer.body
        return str(answer.json()["id"])

    return give


def test_what_is_published_on_one_relay_comes_from_all(
    shared: Shared, publish: Any, subscribe: Subscribe, eventually: Eventually
) -> None:
    (_, first), (_, second) = shared.start_relay(), shared.start_relay("--workers", "2")
    ones = [subscribe(url + NAME) for url in (first, first, second, second, second)]
    eventually(lambda: all(one.raw for one in ones))
    expected = [(publish((first, second)[number % 2], number), str(number)) for number in range(30)]
    eventually(lambda: all(len(one.data) == 30 for one in ones))
    for one in ones:
        assert [(event.id, event.data) for event in one.events] == expected
        assert one.raw.count(b"relay.gap") == 0
    # One connection of each process tells of the topic, however many subscribers there are.
    told = int(shared.command("PUBSUB", "NUMSUB", "relay:topic:news").rsplit(b":", 1)[1])
    assert told in (2, 3)  # three subscribers at the second relay's two workers: one of them, or both
    for one in ones:
        one.stop()
    eventually(lambda: shared.command("PUBSUB", "NUMSUB", "relay:topic:news").endswith(b":0\r\n"))


def test_a_relay_that_is_killed_loses_its_subscribers_nothing(
    shared: Shared, publish: Any, subscribe: Subscribe, eventually: Eventually
) -> None:
    (doomed, first), (_, second) = shared.start_relay(), shared.start_relay()
    ones = [subscribe(first + NAME, second + NAME, again=True) for _ in range(20)]
    eventually(lambda: all(one.raw for one in ones))
    for number in range(200):
        publish(second, number)
        if number == 100:
            os.killpg(doomed.process.pid, signal.SIGKILL)
    eventually(lambda: all(len(one.data) >= 200 for one in ones))
    for one in ones:
        assert one.data == [str(number) for number in range(200)]
        assert one.told("gap") == []


def test_subscribers_outlive_redis_and_get_what_it_kept(
    shared: Shared, publish: Any, http: Http, subscribe: Subscribe, eventually: Eventually
) -> None:
    relay, url = shared.start_relay("--log-level", "info")
    one = subscribe(url + NAME)
    eventually(lambda: one.raw)
    publish(url, "before")
    eventually(lambda: one.data == ['"before"'])
    shared.stop_redis()
    eventually(lambda: http(url + "/readyz").json()["hub"] == "redis_away")
    for method in ("POST", "GET"):
        began = time.monotonic()
        refused = http(url + NAME, method, b'"lost"' if method == "POST" else None)
        assert (refused.status, refused.json()["error"]["code"]) == (503, "hub_unavailable")
        assert refused.headers["Retry-After"] == "1"
        assert time.monotonic() - began < 5
    beats = one.raw.count(b": hb")
    eventually(lambda: one.raw.count(b": hb") > beats)
    shared.start_redis()
    eventually(lambda: http(url + NAME, "POST", b'"after"').status == 201)
    eventually(lambda: one.data == ['"before"', '"after"'])
    assert one.told("gap") == []
    assert one.answers == [200]
    assert relay.output.count("redis is away") == 1


def test_a_redis_that_lost_everything_is_told_of(
    shared: Shared, publish: Any, http: Http, subscribe: Subscribe, eventually: Eventually
) -> None:
    _, url = shared.start_relay()
    one = subscribe(url + NAME)
    eventually(lambda: one.raw)
    last = publish(url, "before")
    eventually(lambda: one.data)
    shared.stop_redis()
    shared.start_redis(keep=False)
    eventually(lambda: http(url + NAME, "POST", b'"after"').status == 201)
    eventually(lambda: one.data == ['"before"', '"after"'])
    # It stands in its place: between what was before and what is after.
    assert [event.event for event in one.events] == ["message", "relay.gap", "message"]
    late = subscribe(url + NAME, last_event_id=last)
    eventually(lambda: late.data == ['"after"'])
    assert [told["after"] for told in late.told("gap")] == [last]


def test_who_waits_too_long_for_redis_is_told(shared: Shared, subscribe: Subscribe, eventually: Eventually) -> None:
    _, url = shared.start_relay(RELAY_REDIS_PATIENCE_SECONDS="1")
    one = subscribe(url + NAME)
    eventually(lambda: one.raw)
    shared.stop_redis()
    eventually(lambda: one.told("error"))
    assert one.told("error")[0]["error"]["code"] == "hub_unavailable"


def test_redis_restarts_under_load_and_nobody_gets_anything_twice(
    shared: Shared, http: Http, subscribe: Subscribe, eventually: Eventually
) -> None:
    urls = [shared.start_relay()[1] for _ in range(2)]
    ones = [subscribe(url + NAME) for url in urls * 5]
    eventually(lambda: all(one.raw for one in ones))
    taken: list[str] = []
    unsure: list[str] = []
    stopping = threading.Event()

    def give(who: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            data = json.dumps(f"{who}-{number}")
            answer = http(urls[who] + NAME, "POST", data.encode())
            if answer.status == 201:
                taken.append(data)
            elif b"may have been published" in answer.body:
                unsure.append(data)

    threads = [threading.Thread(target=give, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        before = len(taken)
        eventually(lambda before=before: len(taken) > before + 50)
        shared.stop_redis()
        shared.start_redis()
    before = len(taken)
    eventually(lambda: len(taken) > before + 50)
    stopping.set()
    for thread in threads:
        thread.join()
    eventually(lambda: all(set(taken) <= set(one.data) for one in ones))
    for one in ones:
        assert len(one.data) == len(set(one.data))
        assert one.data == ones[0].data
        assert set(one.data) <= set(taken) | set(unsure)
        assert one.told("gap") == []


def test_what_redis_keeps_is_bounded(shared: Shared, publish: Any, http: Http, eventually: Eventually) -> None:
    _, url = shared.start_relay(
        "--topic-history-events", "20", "--topic-history-bytes", "8000", "--topic-history-seconds", "3", "--max-topics", "3",
    )  # fmt: skip
    for number in range(60):
        publish(url, number)
    assert shared.command("XLEN", "relay:topic:news") == b":20\r\n"
    for number in range(20):
        publish(url, [number, "x" * 1000])
    assert shared.command("XLEN", "relay:topic:news") == b":6\r\n"  # 256 bytes more for each
    for name in ("/v1/topics/b", "/v1/topics/c"):
        assert http(url + name, "POST", b"1").status == 201
    refused = http(url + "/v1/topics/d", "POST", b"1")
    assert (refused.status, refused.json()["error"]["code"]) == (503, "overloaded")
    assert http(url + "/v1/topics/d").status == 503
    eventually(lambda: http(url + "/v1/topics/d", "POST", b"1").status == 201)
    assert shared.command("EXISTS", "relay:topic:news") == b":0\r\n"


def test_a_quiet_topic_is_kept_alive_by_those_who_listen(
    shared: Shared, publish: Any, subscribe: Subscribe, eventually: Eventually
) -> None:
    _, url = shared.start_relay("--topic-history-seconds", "1")
    one = subscribe(url + NAME)
    eventually(lambda: one.raw)
    publish(url, 1)
    eventually(lambda: one.data == ["1"])
    time.sleep(2.5)
    again = subscribe(url + NAME, last_event_id=one.last_event_id)
    eventually(lambda: again.raw)
    publish(url, 2)
    eventually(lambda: again.data == ["2"])
    assert again.told("gap") == one.told("gap") == []


def test_a_redis_that_stands_still_is_noticed(
    shared: Shared, http: Http, subscribe: Subscribe, eventually: Eventually
) -> None:
    _, url = shared.start_relay()
    one = subscribe(url + NAME)
    eventually(lambda: one.raw)
    shared.redis.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = http(url + NAME, "POST", b"1")
        assert (answer.status, answer.json()["error"]["code"]) == (503, "hub_unavailable")
        assert "may have been published" in answer.json()["error"]["message"]
        assert time.monotonic() - began < 8
    finally:
        shared.redis.process.send_signal(signal.SIGCONT)
    eventually(lambda: http(url + NAME, "POST", b"2").status == 201)
    eventually(lambda: "2" in one.data)
    assert one.told("gap") == []


def test_a_url_with_a_password_is_shown_nowhere(launch: Launch, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "relay", "check-config"]
    shown = launch(*command, env={"RELAY_REDIS_URL": "redis://:hunter2@127.0.0.1:9/0"}, cwd=tmp_path)
    assert shown.process.wait(60) == 0
    assert "RELAY_REDIS_URL=(set)" in shown.output
    assert "hunter2" not in shown.output
    wrong = launch(*command, env={"RELAY_REDIS_URL": "http://:hunter2@127.0.0.1"}, cwd=tmp_path)
    assert wrong.process.wait(60) == 2
    assert "RELAY_REDIS_URL" in wrong.output
    assert "hunter2" not in wrong.output
