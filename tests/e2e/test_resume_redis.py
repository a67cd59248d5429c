"""Relays that share their kept streams through a real Redis: a client that is cut off gets the rest from any of them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.admission.keys import hash_of
from tests.resuming import ASKING, CHAT, RESPONSES, Resumer, part, whole

pytestmark = [pytest.mark.e2e, pytest.mark.needs("redis-server", "redis-server")]

Launched = Any  # the fixtures are typed in conftest.py
Launch = Callable[..., Launched]
Eventually = Callable[..., Any]
Http = Callable[..., Any]

SETTINGS = {
    "RELAY_RESUME": "redis",
    "RELAY_REDIS_TIMEOUT_SECONDS": "2",
    "RELAY_HEARTBEAT_SECONDS": "0.2",
    "RELAY_DRAIN_SECONDS": "0.5",
    "RELAY_UPSTREAM_RETRIES": "0",
}
EVENTS = 60


class Shared:
    """A Redis with its data in a folder, one simulator, and relays that use both."""

    def __init__(self, launch: Launch, free_port: Callable[[], int], folder: Path, http: Http) -> None:
        self._launch = launch
        self._folder = folder
        self._http = http
        self.port = free_port()
        self.redis = self.start_redis()
        simulator = launch(sys.executable, "-m", "relay", "simulate", "--port", "0", cwd=folder)
        self.upstream = simulator.wait_for("http://").split()[1]

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

    def start_relay(self, **settings: str) -> tuple[Launched, str]:
        environment = {
            **SETTINGS,
            "RELAY_UPSTREAM_BASE_URL": self.upstream,
            "RELAY_REDIS_URL": f"redis://127.0.0.1:{self.port}/0",
            **settings,
        }
        relay = self._launch(
            sys.executable, "-m", "relay", "serve", "--port", "0", "--no-diagnostics", env=environment, cwd=self._folder,
        )  # fmt: skip
        return relay, relay.wait_for("relay http", 60).split()[1]

    def state(self, url: str) -> str:
        return str(self._http(url + "/readyz").json()["resume"])

    def asked(self) -> int:
        """How many streams the upstream was asked for."""
        return int(self._http(self.upstream.removesuffix("/v1") + "/simulator/stats").json()["started"])


@pytest.fixture
def shared(launch: Launch, free_port: Callable[[], int], tmp_path: Path, http: Http) -> Shared:
    return Shared(launch, free_port, tmp_path, http)


def script(pace: int, events: int = EVENTS, size: int = 50) -> str:
    return f"sim:events={events},pace={pace},size={size},first=0"


def assert_whole(client: Resumer) -> None:
    """Every event once, and the end."""
    assert client.numbers == list(range(1, len(client.events) + 1))
    last = client.events[-1]
    assert last.data == "[DONE]" if client.route != RESPONSES else last.event == "response.completed"
    assert len(client.events) > EVENTS


def test_the_rest_comes_from_any_relay_however_often_a_client_is_cut_off(shared: Shared) -> None:
    urls = [shared.start_relay()[1] for _ in range(2)]
    clients = [(Resumer(route, script(200)), by) for route in ASKING for by in ("header", "number")]
    clients += [(Resumer(RESPONSES, script(200)), "response") for _ in range(2)]
    failures: list[BaseException] = []

    def run(number: int, client: Resumer, by: str) -> None:
        try:
            for turn in range(4):
                # To the other one each time.
                most = random.randrange(1200, 4500) if turn < 3 else None
                client.read(urls[(number + turn) % 2], most, by)
        except BaseException as error:  # noqa: BLE001  # of a thread: for the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number, *one)) for number, one in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for client, _ in clients:
        assert client.statuses == [200] * 4, (client.route, client.stream, client.numbers)
        assert_whole(client)
        for url in urls:
            assert whole(url, f"/v1/streams/{client.stream}").events == client.events
    assert shared.asked() == len(clients), "each answer was paid once"


def test_a_client_that_follows_elsewhere_keeps_its_stream_going(shared: Shared) -> None:
    (_, first), (_, second) = (shared.start_relay(RELAY_RESUME_GRACE_SECONDS="2.5") for _ in range(2))
    client = Resumer(CHAT, script(10))  # for six seconds
    client.read(first, 1000)
    assert client.read(second, None)
    assert_whole(client)


def test_a_stream_whose_relay_is_killed_ends_with_an_error_at_the_others(
    shared: Shared, eventually: Eventually
) -> None:
    (doomed, first), (_, second) = shared.start_relay(), shared.start_relay()
    client, waiting = Resumer(CHAT, script(20, 3000)), Resumer(CHAT, script(20, 3000))
    for one in (client, waiting):
        one.read(first, 3000)
    with part(second, "GET", f"/v1/streams/{waiting.stream}") as (got, response):
        got.raw = response.read1()
        doomed.process.send_signal(signal.SIGKILL)
        got.raw += response.read()
    assert json.loads(got.events[-1].data)["error"]["code"] == "stream_broken"
    assert [event.id for event in got.events] == [f"{waiting.stream}:{n}" for n in range(1, len(got.events) + 1)]
    assert got.events[: len(waiting.events)] == waiting.events
    # Whoever comes later is told the same: by the last event, or where it has seen as much, by the status.
    late = whole(second, f"/v1/streams/{client.stream}?starting_after={client.numbers[-1]}")
    error = late.error if late.status == 502 else json.loads(late.events[-1].data)["error"]
    assert error["code"] == "stream_broken"
    beyond = whole(second, f"/v1/streams/{waiting.stream}?starting_after={len(got.events)}")
    assert (beyond.status, beyond.error["code"]) == (502, "stream_broken")


def test_a_relay_that_is_shut_down_ends_its_streams_with_an_error_that_all_get(shared: Shared) -> None:
    (leaving, first), (_, second) = shared.start_relay(), shared.start_relay()
    client = Resumer(CHAT, script(20, 3000))
    client.read(first, 3000)
    with part(second, "GET", f"/v1/streams/{client.stream}") as (got, response):
        got.raw = response.read1()
        assert leaving.end(signal.SIGTERM) in (0, 143, -signal.SIGTERM)
        got.raw += response.read()
    assert json.loads(got.events[-1].data)["error"]["code"] == "shutting_down"
    assert client.read(second, None)
    assert client.events == got.events


def test_clients_at_a_relay_that_is_shut_down_go_on_at_the_other(shared: Shared, eventually: Eventually) -> None:
    (_, first), (leaving, second) = shared.start_relay(), shared.start_relay()
    client = Resumer(CHAT, script(20))
    client.read(first, 1000)
    stopping = threading.Timer(0.3, lambda: leaving.process.send_signal(signal.SIGTERM))
    stopping.start()
    try:
        # Cut off, so that a client knows that this is not the end.
        with pytest.raises(OSError):
            client.read(second, None)
    finally:
        stopping.join()
    assert client.read(first, None)
    assert_whole(client)


@pytest.mark.parametrize("keep", [True, False], ids=["with its data", "without its data"])
def test_redis_restarts_and_no_stream_loses_an_event(shared: Shared, eventually: Eventually, keep: bool) -> None:
    (_, first), (_, second) = shared.start_relay(), shared.start_relay()
    away, there = Resumer(RESPONSES, script(10)), Resumer(CHAT, script(10))
    for one in (away, there):
        one.read(first, 2500)
    # One follows at the other relay all the time, one is cut off there, and comes back when Redis is back.
    reading = threading.Thread(target=there.read, args=(second, None))
    reading.start()
    away.read(second, 400)
    shared.stop_redis()
    eventually(lambda: shared.state(first) == shared.state(second) == "redis_away")
    for path in (f"/v1/streams/{away.stream}", "/v1/streams/AAAAAAAAAAAAAAAAAAAA", "/v1/responses/resp_1?stream=true"):
        refused = whole(second, path)
        assert (refused.status, refused.error["code"]) == (503, "resume_unavailable")
        assert refused.headers["Retry-After"] == "1"
    # The relay that has the stream needs no Redis for it, and new streams begin as ever.
    assert len(whole(first, f"/v1/streams/{there.stream}?starting_after=1").events) > 0
    assert Resumer(CHAT, script(0)).read(second, None)
    shared.start_redis(keep=keep)
    eventually(lambda: shared.state(first) == shared.state(second) == "redis")
    reading.join()
    eventually(lambda: away.read(second, None) and away.statuses[-1] == 200)
    for one in (away, there):
        assert_whole(one)
        assert whole(second, f"/v1/streams/{one.stream}").events == one.events


def test_what_cannot_be_resumed_is_refused_by_all(shared: Shared, eventually: Eventually) -> None:
    keys = {name: f"{name}-{random.getrandbits(64)}" for name in ("mine", "theirs")}
    listed = ",".join(f"{name}:generate:{hash_of(key.encode())}" for name, key in keys.items())
    settings = {"RELAY_CLIENT_KEYS": listed, "RELAY_RESUME_SECONDS": "3"}
    (_, first), (_, second) = shared.start_relay(**settings), shared.start_relay(**settings)
    mine, theirs = ({"Authorization": f"Bearer {keys[name]}"} for name in ("mine", "theirs"))
    client = Resumer(RESPONSES, script(0, 3), mine)
    client.read(first, None)
    path = f"/v1/streams/{client.stream}"
    response = f"/v1/responses/{json.loads(client.events[0].data)['response']['id']}?stream=true"
    eventually(lambda: whole(second, path, **mine).status == 200)
    for url in (first, second):
        for asked in (path, response, f"{path}?starting_after=99", "/v1/streams/AAAAAAAAAAAAAAAAAAAA"):
            refused = whole(url, asked, **theirs)
            assert (refused.status, refused.error["code"]) == (404, "stream_not_found"), (url, asked)
        future = whole(url, f"{path}?starting_after=99", **mine)
        assert (future.status, future.error["param"]) == (400, "starting_after")
        assert whole(url, response, **mine).events == client.events
        nothing = Resumer(RESPONSES, "m", {**mine, "Last-Event-ID": client.last_event_id})
        assert nothing.read(url, None)
        assert nothing.statuses == [204]
    for url in (first, second):
        eventually(lambda url=url: whole(url, path, **mine).status == 410)
        assert whole(url, path, **theirs).status == 404
    eventually(lambda: whole(first, path, **mine).status == whole(second, path, **mine).status == 404)


def test_a_slow_client_elsewhere_gets_what_redis_keeps_and_holds_little(shared: Shared) -> None:
    settings = {"RELAY_RESUME_STREAM_BYTES": "8000000", "RELAY_RESUME_BYTES": "9000000"}
    (_, first), (_, second) = shared.start_relay(**settings), shared.start_relay(**settings)
    client = Resumer(CHAT, script(0, 1500, 4000))
    client.read(first, 6000)
    with part(second, "GET", f"/v1/streams/{client.stream}") as (got, response):
        got.raw = response.read(10_000)
        time.sleep(1)  # it takes nothing while everything is there
        got.raw += response.read()
    assert [event.id for event in got.events] == [f"{client.stream}:{n}" for n in range(1, 1504)]


def test_what_a_relay_gives_up_for_room_redis_gives_up_too(shared: Shared, eventually: Eventually) -> None:
    settings = {"RELAY_RESUME_STREAM_BYTES": "50000", "RELAY_RESUME_BYTES": "150000"}
    (_, first), (_, second) = shared.start_relay(**settings), shared.start_relay(**settings)
    clients = [Resumer(CHAT, script(0, 100, 100)) for _ in range(8)]
    for client in clients:
        assert client.read(first, None)
    eventually(lambda: whole(second, f"/v1/streams/{clients[0].stream}").status == 410)
    last = clients[-1]
    eventually(lambda: whole(second, f"/v1/streams/{last.stream}?starting_after=90").events == last.events[90:])
    assert whole(second, f"/v1/streams/{last.stream}?starting_after=0").status in (200, 410)


def test_redis_that_hangs_stops_no_stream(shared: Shared, eventually: Eventually) -> None:
    _, first = shared.start_relay()
    _, second = shared.start_relay()
    os.kill(shared.redis.process.pid, signal.SIGSTOP)
    try:
        client = Resumer(CHAT, script(100))
        assert client.read(first, None)
        assert_whole(client)
        refused = whole(second, f"/v1/streams/{client.stream}")
        assert (refused.status, refused.error["code"]) == (503, "resume_unavailable")
    finally:
        os.kill(shared.redis.process.pid, signal.SIGCONT)
    eventually(lambda: whole(second, f"/v1/streams/{client.stream}").events == client.events)
