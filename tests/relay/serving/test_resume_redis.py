"""Relays that share their kept streams through a real Redis: a client that is cut off gets the rest from any of them."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics.proof.subjects.processes import free_port
from relay.admission.keys import hash_of
from relay.resume.redis_log import LEASE_SECONDS
from tests.resuming import ASKING, CHAT, LARGE, LARGE_EVENTS, RESPONSES, Resumer, part, whole

pytestmark = [pytest.mark.e2e, pytest.mark.needs("redis-server", "redis-server")]

Served = Any  # the fixtures are typed in conftest.py
Start = Callable[..., Served]

SETTINGS = {
    "RELAY_RESUME": "redis",
    "RELAY_REDIS_TIMEOUT_SECONDS": "2",
    "RELAY_HEARTBEAT_SECONDS": "0.2",
    "RELAY_DRAIN_SECONDS": "0.5",
    "RELAY_RESUME_GRACE_SECONDS": "600",
    "RELAY_UPSTREAM_RETRIES": "0",
}
EVENTS = 60
# How many keys of a pattern have no time at which they expire.
EXPIRES = """
local count = 0
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
    if redis.call('PTTL', key) < 0 then count = count + 1 end
end
return count
"""
# Remove the second key, unless the first one says that all of the stream is there.
EVICT = "return redis.call('HEXISTS', KEYS[1], 'over') == 1 and 0 or redis.call('UNLINK', KEYS[2])"


class Redis:
    """A Redis with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._started: list[subprocess.Popen[bytes]] = []
        self.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self._started[-1]

    def start(self, *, keep: bool = True) -> None:
        """With the data of the one before, or without."""
        folder = self._folder / f"redis-{'kept' if keep else len(self._started)}"
        folder.mkdir(exist_ok=True)
        with open(folder / "log", "ab") as log:
            command = (
                "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder, "--save", "",
                "--appendonly", "yes", "--appendfsync", "always",
            )  # fmt: skip
            self._started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def command(self, *words: str) -> bytes:
        """The reply to a command, as Redis writes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            parts = b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n%b" % (len(words), parts))
            return connection.recv(1 << 16)

    def keys(self, pattern: str) -> list[str]:
        return sorted(self.command("KEYS", pattern).decode().split("\r\n")[2::2])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)


class Shared:
    """Relays that share a Redis, and the simulator of the first of them."""

    def __init__(self, start: Start, redis: Redis, **settings: str) -> None:
        self._start = start
        self.redis = redis
        self._settings = {**SETTINGS, "RELAY_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0", **settings}
        self.one = start("--no-diagnostics", announced=2, **self._settings)
        self.two = self.another()
        self.urls = [self.one.url, self.two.url]
        until(lambda: states(*self.urls) == {"redis"})

    def another(self, **more: str) -> Served:
        settings = {**self._settings, "RELAY_UPSTREAM_BASE_URL": self.one.upstream, **more}
        relay = self._start("--no-diagnostics", announced=2, **settings)
        until(lambda: states(relay.url) == {"redis"})
        return relay

    def asked(self) -> int:
        """How many streams the upstream was asked for."""
        return int(self.one.stats()["started"])


def states(*urls: str) -> set[str]:
    return {json.loads(whole(url, "/readyz").raw)["resume"] for url in urls}


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def refuses(url: str) -> bool:
    """Whether nobody listens there any more."""
    try:
        whole(url, "/readyz")
    except OSError:
        return True
    return False


def until_some(found: Callable[[], list[str]]) -> list[str]:
    until(found)
    return found()


def expires_at(redis: Redis, key: str) -> int:
    """In milliseconds of the epoch; negative where there is no such key."""
    return int(redis.command("PEXPIRETIME", key)[1:])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def shared(start_shared: Start, redis: Redis) -> Shared:
    return Shared(start_shared, redis)


def script(pace: int, events: int = EVENTS, size: int = 50) -> str:
    return f"sim:events={events},pace={pace},size={size},first=0"


def assert_whole(client: Resumer) -> None:
    """Every event once, and the end."""
    assert client.numbers == list(range(1, len(client.events) + 1))
    last = client.events[-1]
    assert last.data == "[DONE]" if client.route != RESPONSES else last.event == "response.completed"
    assert len(client.events) > EVENTS


def test_the_rest_comes_from_any_relay_however_often_a_client_is_cut_off(shared: Shared) -> None:
    before = shared.asked()
    clients = [(Resumer(route, script(200)), by) for route in ASKING for by in ("header", "number")]
    clients += [(Resumer(RESPONSES, script(200)), "response") for _ in range(2)]
    failures: list[BaseException] = []

    def run(number: int, client: Resumer, by: str) -> None:
        try:
            for turn in range(4):
                # To the other one each time.
                most = random.randrange(1200, 4500) if turn < 3 else None
                client.read(shared.urls[(number + turn) % 2], most, by)
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
        for url in shared.urls:
            assert whole(url, f"/v1/streams/{client.stream}").events == client.events
    assert shared.asked() == before + len(clients), "each answer was paid once"


def test_a_client_that_follows_elsewhere_keeps_its_stream_going(shared: Shared) -> None:
    other = shared.another(RELAY_RESUME_GRACE_SECONDS="3")
    client = Resumer(CHAT, script(10))  # for six seconds, twice the grace time
    client.read(other.url, 1000)
    assert client.read(shared.two.url, None)
    assert_whole(client)


def test_large_events_come_whole_to_a_client_elsewhere(shared: Shared) -> None:
    """More than may wait for it there, each of them."""
    client = Resumer(CHAT, LARGE)
    with part(shared.one.url, "POST", CHAT, client._body()) as (begun, response):
        stream = begun.headers["x-relay-stream"]
        with part(shared.two.url, "GET", f"/v1/streams/{stream}") as (got, rest):
            response.read1(1)
            while len(got.events) < LARGE_EVENTS:
                got.raw += rest.read1(65536)
    assert [event.id for event in got.events] == [f"{stream}:{n}" for n in range(1, LARGE_EVENTS + 1)]
    # A response ends with its whole text, again and again.
    client = Resumer(RESPONSES, script(2000, 2000))
    client.read(shared.one.url, 2000)
    assert client.read(shared.two.url, None, by="response")
    assert_whole(client)


def test_a_stream_whose_relay_is_killed_ends_with_an_error_at_the_others(
    shared: Shared,
) -> None:
    doomed, second = shared.another(), shared.two.url
    first = doomed.url
    client, waiting = Resumer(CHAT, script(20, 3000)), Resumer(CHAT, script(20, 3000))
    for one in (client, waiting):
        one.read(first, 3000)
    ahead = f"/v1/streams/{client.stream}?starting_after=100000"
    future = whole(second, ahead)
    assert (future.status, future.error["param"]) == (400, "starting_after"), "its relay lives, and has no such event"
    with part(second, "GET", f"/v1/streams/{waiting.stream}") as (got, response):
        got.raw = response.read1()
        doomed.process.send_signal(signal.SIGKILL)
        # Its relay may have had that event, and no time to copy it: nobody knows any more.
        unknown = whole(second, ahead)
        assert (unknown.status, unknown.error["code"]) == (502, "stream_broken")
        got.raw += response.read()
    assert json.loads(got.events[-1].data)["error"]["code"] == "stream_broken"
    assert [event.id for event in got.events] == [f"{waiting.stream}:{n}" for n in range(1, len(got.events) + 1)]
    # All that was copied: what its client got of the last moment may not be in it.
    assert all(one == other for one, other in zip(got.events[:-1], waiting.events, strict=False))
    # Whoever comes later is told the same: by the last event, or where it has seen as much, by the status.
    late = whole(second, f"/v1/streams/{client.stream}?starting_after={client.numbers[-1]}")
    error = late.error if late.status == 502 else json.loads(late.events[-1].data)["error"]
    assert error["code"] == "stream_broken"
    beyond = whole(second, f"/v1/streams/{waiting.stream}?starting_after={len(got.events)}")
    assert (beyond.status, beyond.error["code"]) == (502, "stream_broken")


@pytest.mark.parametrize("hurry", [False, True], ids=["by one signal", "by two"])
def test_a_relay_that_is_shut_down_ends_its_streams_with_an_error_that_all_get(shared: Shared, hurry: bool) -> None:
    leaving, second = shared.another(RELAY_DRAIN_SECONDS="600" if hurry else "0.5"), shared.two.url
    first = leaving.url
    client = Resumer(CHAT, script(20, 3000))
    client.read(first, 3000)
    with part(second, "GET", f"/v1/streams/{client.stream}") as (got, response):
        got.raw = response.read1()
        if hurry:
            leaving.process.send_signal(signal.SIGTERM)
            until(lambda: refuses(first))
        leaving.terminate()
        got.raw += response.read()
    assert json.loads(got.events[-1].data)["error"]["code"] == "shutting_down"
    assert client.read(second, None)
    assert client.events == got.events


@pytest.mark.parametrize("hurry", [False, True], ids=["by one signal", "by two"])
def test_a_relay_that_is_shut_down_while_redis_is_away_copies_the_ends_when_it_is_back(
    shared: Shared, hurry: bool
) -> None:
    leaving = shared.another(RELAY_DRAIN_SECONDS="600", RELAY_REDIS_TIMEOUT_SECONDS="0.2")
    client = Resumer(CHAT, script(40, 80))
    client.read(leaving.url, 1000)
    until(lambda: shared.redis.keys(f"*:about:{client.stream}"))
    shared.redis.stop()
    leaving.process.send_signal(signal.SIGTERM)
    until(leaving.endings)
    if hurry:
        leaving.process.send_signal(signal.SIGTERM)
        leaving.process.wait(60)
    else:
        time.sleep(2)  # ten time-outs
    shared.redis.start()
    until(lambda: states(*shared.urls) == {"redis"})
    if not hurry:
        assert leaving.process.wait(60) == 0
        assert client.read(shared.two.url, None)
        assert_whole(client)


def test_clients_at_a_relay_that_is_shut_down_go_on_at_the_other(shared: Shared) -> None:
    leaving = shared.another()
    client = Resumer(CHAT, script(20, 120))
    client.read(shared.one.url, 1000)
    with part(leaving.url, "GET", f"/v1/streams/{client.stream}") as (_, response):
        assert response.read1()
        leaving.process.send_signal(signal.SIGTERM)
        # Cut off, so that a client knows that this is not the end.
        with pytest.raises((OSError, http.client.HTTPException)):
            response.read()
    assert client.read(shared.two.url, None)
    assert_whole(client)


@pytest.mark.parametrize("keep", [True, False], ids=["with its data", "without its data"])
def test_redis_restarts_and_no_stream_loses_an_event(shared: Shared, keep: bool) -> None:
    first, second = shared.urls
    away, there = Resumer(RESPONSES, script(10)), Resumer(CHAT, script(10))
    for one in (away, there):
        one.read(first, 2500)
    # One follows at the other relay all the time, one is cut off there, and comes back when Redis is back.
    reading = threading.Thread(target=there.read, args=(second, None))
    reading.start()
    away.read(second, 400)
    until(lambda: len(there.statuses) == 2)
    shared.redis.stop()
    until(lambda: states(*shared.urls) == {"redis_away"})
    for path in (f"/v1/streams/{away.stream}", "/v1/streams/AAAAAAAAAAAAAAAAAAAA", "/v1/responses/resp_1?stream=true"):
        refused = whole(second, path)
        assert (refused.status, refused.error["code"]) == (503, "resume_unavailable")
        assert refused.headers["Retry-After"] == "1"
    # The relay that has the stream needs no Redis for it, and new streams begin as ever.
    assert len(whole(first, f"/v1/streams/{there.stream}?starting_after=1").events) > 0
    assert Resumer(CHAT, script(0)).read(second, None)
    shared.redis.start(keep=keep)
    until(lambda: states(*shared.urls) == {"redis"})
    reading.join()
    until(lambda: away.read(second, None) and away.statuses[-1] == 200)
    for one in (away, there):
        assert_whole(one)
        assert whole(second, f"/v1/streams/{one.stream}").events == one.events


def test_what_cannot_be_resumed_is_refused_by_all(start: Start, redis: Redis) -> None:
    keys = {name: f"{name}-{random.getrandbits(64)}" for name in ("mine", "theirs")}
    listed = ",".join(f"{name}:generate:{hash_of(key.encode())}" for name, key in keys.items())
    few = Shared(
        start, redis, RELAY_CLIENT_KEYS=listed, RELAY_RESUME_STREAM_BYTES="50000", RELAY_RESUME_BYTES="150000",
        RELAY_REDIS_PREFIX="few:",
    )  # fmt: skip
    first, second = few.urls
    mine, theirs = ({"Authorization": f"Bearer {keys[name]}"} for name in ("mine", "theirs"))
    client = Resumer(RESPONSES, script(0, 3), mine)
    client.read(first, None)
    path = f"/v1/streams/{client.stream}"
    response = f"/v1/responses/{json.loads(client.events[0].data)['response']['id']}?stream=true"
    until(lambda: whole(second, path, **mine).status == 200)
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
    # Of the time that Redis is told to keep them, the keys are made to reach the end.
    redis.command("PEXPIRE", f"few:resume:stream:{client.stream}", "1")
    until(lambda: whole(second, path, **mine).status == 410)
    assert whole(second, path, **theirs).status == 404
    redis.command("PEXPIRE", f"few:resume:about:{client.stream}", "1")
    until(lambda: whole(second, path, **mine).status == 404)
    for kind in ("stream", "about", "response"):
        left = redis.command("EVAL", EXPIRES, "0", f"few:resume:{kind}:*")
        assert left == b":0\r\n", f"keys of {kind} that never expire"
    # What a relay gives up for room, Redis gives up, too.
    clients = [Resumer(CHAT, script(0, 100, 100), mine) for _ in range(8)]
    for client in clients:
        assert client.read(first, None)
    until(lambda: whole(second, f"/v1/streams/{clients[0].stream}", **mine).status == 410)
    last = clients[-1]
    until(lambda: whole(second, f"/v1/streams/{last.stream}?starting_after=90", **mine).events == last.events[90:])


def test_a_client_elsewhere_whose_events_are_gone_from_redis_is_told_and_does_not_wait(
    start: Start, redis: Redis
) -> None:
    """What a relay gives up for room may go between a client's look and its first read."""
    silent = Shared(start, redis, RELAY_REDIS_PREFIX="silent:")
    first, second = silent.urls
    client = Resumer(CHAT, "sim:events=9,pace=0,fault=stall@5")
    with part(first, "POST", CHAT, client._body()) as (begun, response):
        stream = begun.headers["x-relay-stream"]
        begun.raw = response.read1(65536)
        until(lambda: redis.command("EXISTS", f"silent:resume:stream:{stream}") == b":1\r\n")
        path = f"/v1/streams/{stream}?starting_after={int(begun.events[0].id.rpartition(':')[2])}"
        with part(second, "GET", path) as (got, rest):
            assert rest.read1(1)
            redis.command("UNLINK", f"silent:resume:stream:{stream}")
            got.raw = b"i" + rest.read()
    assert json.loads(got.events[-1].data)["error"]["code"] == "stream_expired"


@pytest.mark.parametrize("evicted", ["about", "stream"])
def test_what_redis_has_evicted_is_copied_again(shared: Shared, evicted: str) -> None:
    """A Redis that is full may evict one of a stream's two keys: neither that stream's copy nor that of others suffers."""
    first, second = shared.urls
    done, pace = b"", 10
    while done != b":1\r\n":  # 0: on a busy machine the stream was over, and copied, before
        pace *= 2
        client, other = Resumer(CHAT, script(pace)), Resumer(CHAT, script(pace))
        for one in (client, other):
            one.read(first, 1500)
            until(lambda one=one: shared.redis.command("EXISTS", f"relay:resume:stream:{one.stream}") == b":1\r\n")
        keys = (f"relay:resume:{kind}:{client.stream}" for kind in ("about", evicted))
        done = shared.redis.command("EVAL", EVICT, "2", *keys)
    for one in (client, other):
        assert one.read(first, None)
        assert_whole(one)
        until(lambda one=one: whole(second, f"/v1/streams/{one.stream}").events == one.events)


def test_a_redis_that_loses_all_keys_again_and_again_ends_no_stream(shared: Shared) -> None:
    """Also the leases go, by which relays tell that the others live."""
    first, second = shared.urls
    client, follower = Resumer(RESPONSES, script(50, 1000)), Resumer(CHAT, script(50, 1000))
    for one in (client, follower):
        one.read(first, 2000)
    reading = threading.Thread(target=follower.read, args=(second, None))
    reading.start()
    # Longer than a relay has to be up before it says of another one that it is gone.
    ends, waited = time.monotonic() + LEASE_SECONDS + 2, threading.Event()
    while time.monotonic() < ends:
        assert shared.redis.command("FLUSHALL") == b"+OK\r\n"
        waited.wait(0.3)
        # Its stream is copied again before the lease of its relay is there again, or after.
        client.read(second, 400, by="number")
    until(lambda: client.read(second, None, by="response") and client.statuses[-1] == 200)
    reading.join()
    assert_whole(follower)
    assert_whole(client)


def found(url: str, client: Resumer) -> int:
    """The status of an answer to one that asks for the response by the upstream's name of it."""
    name = json.loads(client.events[0].data)["response"]["id"]
    with part(url, "GET", f"/v1/responses/{name}?stream=true") as (got, _):
        return got.status


def test_a_response_is_found_by_its_name_after_redis_has_lost_all_keys(shared: Shared) -> None:
    client = Resumer(RESPONSES, script(100, 200))
    client.read(shared.one.url, 2000)
    until(lambda: found(shared.two.url, client) == 200)
    shared.redis.command("FLUSHALL")
    until(lambda: found(shared.two.url, client) == 200)


def test_a_response_is_found_by_its_name_for_as_long_as_it_runs(start: Start, redis: Redis) -> None:
    """Longer than an ended one is remembered."""
    short = Shared(start, redis, RELAY_REDIS_PREFIX="short:", RELAY_RESUME_SECONDS="1")
    client = Resumer(RESPONSES, script(20, 3000))
    client.read(short.one.url, 2000)
    (key,) = until_some(lambda: redis.keys("short:resume:response:*"))
    # The time at which it expires moves on.
    before = expires_at(redis, key)
    until(lambda: expires_at(redis, key) > before)
    assert found(short.two.url, client) == 200


def test_a_redis_that_takes_no_copies_is_away_until_it_does(start: Start, redis: Redis) -> None:
    """It answers all else, as where the relay's user may run no scripts."""
    refusing = Shared(start, redis, RELAY_REDIS_PREFIX="refusing:")
    first, second = refusing.urls
    client = Resumer(CHAT, script(20, 200))
    client.read(first, 1000)
    assert redis.command("ACL", "SETUSER", "default", "-evalsha") == b"+OK\r\n"
    try:
        until(lambda: states(first) == {"redis_away"})
        seen = []
        for _ in range(5):  # beats, which are taken all the time
            before = redis.command("GET", *redis.keys("refusing:resume:relay:*")[:1])
            until(lambda before=before: redis.command("GET", *redis.keys("refusing:resume:relay:*")[:1]) != before)
            seen.append(states(first))
        assert seen == [{"redis_away"}] * 5
    finally:
        redis.command("ACL", "SETUSER", "default", "+@all")
    until(lambda: states(*refusing.urls) == {"redis"})
    assert client.read(second, None)
    assert_whole(client)


def test_a_slow_client_elsewhere_gets_what_redis_keeps(shared: Shared) -> None:
    client = Resumer(CHAT, script(0, 300, 4000))
    client.read(shared.one.url, 6000)
    path = f"/v1/streams/{client.stream}"
    with part(shared.two.url, "GET", path, receives=4096) as (got, response):
        got.raw = response.read(10_000)
        until(
            lambda: whole(shared.two.url, path).events[-1].data == "[DONE]"
        )  # it takes nothing while everything is there
        got.raw += response.read()
    assert [event.id for event in got.events] == [f"{client.stream}:{n}" for n in range(1, 304)]


def test_redis_that_hangs_stops_no_stream(shared: Shared) -> None:
    first, second = shared.urls
    os.kill(shared.redis.process.pid, signal.SIGSTOP)
    try:
        client = Resumer(CHAT, script(100))
        assert client.read(first, None)
        assert_whole(client)
        refused = whole(second, f"/v1/streams/{client.stream}")
        assert (refused.status, refused.error["code"]) == (503, "resume_unavailable")
    finally:
        os.kill(shared.redis.process.pid, signal.SIGCONT)
    until(lambda: whole(second, f"/v1/streams/{client.stream}").events == client.events)
