"""Subscribers that are too slow, leave, or are ended: no publisher waits for them, and nothing of them stays."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from relay.memory.buffer import POLICIES

Served = Any  # the fixtures are typed in the conftest.py files
Start = Any
Subscribe = Any
Eventually = Callable[..., Any]

names = (f"/v1/topics/t{number}" for number in count())


FLAGS = (
    "--diagnostics", "127.0.0.1:0", "--topic-history-bytes", "400000", "--topic-event-bytes", "16384",
    "--subscriber-bytes", "40000", "--heartbeat-seconds", "0.3",
)  # fmt: skip


@pytest.fixture(scope="module")
def hub(start_shared: Start) -> Served:
    """One that waits for a slow subscriber for longer than any test takes."""
    return start_shared(*FLAGS, "--write-timeout-seconds", "600")


@pytest.fixture(scope="module")
def impatient(start_shared: Start) -> Served:
    """One that ends a subscriber that takes nothing for three seconds."""
    return start_shared(*FLAGS, "--write-timeout-seconds", "3")


@pytest.fixture
def topic() -> str:
    return next(names)


def publish(relay: Served, path: str, data: Any) -> None:
    assert relay.ask("POST", path, json.dumps(data).encode(), {}).status == 201


class Numbers:
    """The relay's metrics of topics and how much they have grown since, as the monitor last read them: up to a second ago."""

    def __init__(self, relay: Served) -> None:
        self._url = relay.lines[1].split()[1].removesuffix("/debug/memory") + "/metrics"
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        with urllib.request.urlopen(self._url, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def now(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        return self._sum(self._read(), name, labels)

    def grown(self, name: str, **labels: str) -> float:
        return self.now(name, **labels) - self._sum(self._before, name, labels)

    def _sum(self, readings: dict[str, float], name: str, labels: dict[str, str]) -> float:
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        return sum(
            value
            for series, value in readings.items()
            if re.split("[{ ]", series)[0] == name and wanted <= set(re.findall(r'\w+="[^"]*"', series))
        )


def never_reads(relay: Served, path: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(relay.address)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert connection.recv(1) == b"H"
    return connection


def rest(connection: socket.socket) -> tuple[bytes, bool]:
    """What still comes until a heartbeat, which is sent when nothing waits, or the end; and which of them it was."""
    whole = b""
    try:
        while chunk := connection.recv(65536):
            whole += chunk
            if b": hb\n" in whole[-100:]:
                return whole, False
    except ConnectionResetError:
        pass
    return whole, True


@pytest.mark.parametrize("policy", POLICIES)
def test_a_slow_subscriber_holds_up_nobody_and_gets_what_its_policy_says(
    request: pytest.FixtureRequest, topic: str, policy: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    hub: Served = request.getfixturevalue("impatient" if policy in ("block", "disconnect") else "hub")
    numbers = Numbers(hub)
    fast = subscribe(hub.url + topic)
    eventually(lambda: fast.raw)
    with closing(never_reads(hub, f"{topic}?policy={policy}")) as slow:
        for number in range(100):
            publish(hub, topic, [number, "x" * 8000])
        eventually(lambda: len(fast.data) == 100)
        if policy in ("block", "disconnect"):
            # block: the 400,000 bytes of history are gone past it; disconnect: so are the 40,000 of its buffer.
            eventually(lambda: numbers.grown("stream_closed_total", outcome="slow_client") == 1)
            assert numbers.grown("stream_dropped_events_total", policy=policy) == 0
            got, ended = rest(slow)
            assert ended
            assert not got.endswith(b"0\r\n\r\n")
            return
        got, ended = rest(slow)
        assert not ended
        came = [int(part.split(b",")[0]) for part in got.split(b"data: [")[1:]]
        assert sorted(set(came)) == came
        dropped = 100 - len(came)
        assert dropped > 50
        eventually(lambda: numbers.grown("stream_dropped_events_total", policy=policy) == dropped)
        assert (99 in came) == (policy != "drop_newest")
        told = [json.loads(part.split(b"\n")[0])["events"] for part in got.split(b"event: relay.dropped\ndata: ")[1:]]
        assert sum(told) == (0 if policy == "latest" else dropped)
        eventually(lambda: numbers.now("stream_buffered_bytes", layer="app") == 0)
    # The one before may still be on its way out.
    eventually(lambda: numbers.grown("stream_closed_total", outcome="client_disconnected") >= 1)
    eventually(lambda: numbers.grown("stream_events_total", direction="in") == 200)
    eventually(lambda: numbers.grown("stream_events_total", direction="out") == 200 - dropped + len(told))


def test_block_waits_for_a_subscriber_as_long_as_the_history_has_what_it_needs(
    hub: Served, topic: str, eventually: Eventually
) -> None:
    with closing(never_reads(hub, f"{topic}?policy=block")) as slow:
        for number in range(40):  # 320,000 bytes: the kernel, the buffer and the history have them
            publish(hub, topic, [number, "x" * 8000])
        got, ended = rest(slow)
        assert not ended
        assert [int(part.split(b",")[0]) for part in got.split(b"data: [")[1:]] == list(range(40))


def test_one_that_takes_nothing_is_ended_in_time_and_a_silent_one_kept_alive(
    start: Start, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    hub = start(*FLAGS, "--write-timeout-seconds", "3")
    numbers = Numbers(hub)
    idle = subscribe(hub.url + next(names))
    with closing(never_reads(hub, topic)) as slow:
        began = time.monotonic()
        for number in range(20):
            publish(hub, topic, [number, "x" * 8000])
        eventually(lambda: numbers.grown("stream_closed_total", outcome="slow_client") == 1)
        assert time.monotonic() - began >= 3
        assert rest(slow)[1]
    eventually(lambda: idle.raw.count(b": hb\n\n") >= 3)
    assert numbers.now("stream_open_connections") == 1
    # A comment is no event.
    assert idle.events == []
    assert numbers.grown("stream_events_total", direction="out") <= 20


def test_subscribers_are_told_when_the_relay_ends(
    start: Start, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    relay = start("--no-diagnostics", "--drain-seconds", "0.5", announced=2)
    one = subscribe(relay.url + topic)
    eventually(lambda: one.raw)
    with closing(never_reads(relay, topic)):
        for number in range(30):
            publish(relay, topic, [number, "x" * 8000])
        eventually(lambda: len(one.data) == 30)
        assert relay.terminate() == 0
    (error,) = one.told("error")
    assert error["error"]["code"] == "shutting_down"
    assert one.last_event_id == one.events[29].id


def test_a_relay_that_drains_lets_its_subscribers_go_one_by_one(
    start: Start, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    relay = start("--no-diagnostics", "--drain-seconds", "60", "--heartbeat-seconds", "0", announced=2)
    ones = [subscribe(relay.url + topic) for _ in range(60)]
    eventually(lambda: all(one.raw for one in ones))
    began = time.monotonic()
    relay.process.terminate()
    eventually(lambda: sum(bool(one.told("error")) for one in ones) >= 3)
    # Half of the drain's time for all of them: two a second. A second signal does not wait for that.
    gone = sum(bool(one.told("error")) for one in ones)
    assert gone <= 1 + 2 * (time.monotonic() - began)
    relay.process.terminate()
    relay.process.wait(60)
    eventually(lambda: all(one.told("error") for one in ones))


def test_a_relay_with_subscribers_only_does_not_wait_for_its_drain_to_end(
    start: Start, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    relay = start("--no-diagnostics", "--drain-seconds", "600", announced=2)
    one = subscribe(relay.url + topic)
    eventually(lambda: one.raw)
    began = time.monotonic()
    assert relay.terminate() == 0
    assert time.monotonic() - began < 600
    assert one.told("error")


def test_a_thousand_subscribers_leave_nothing_behind(start: Start, topic: str, eventually: Eventually) -> None:
    relay = start("--diagnostics", "127.0.0.1:0", "--topic-history-seconds", "1")
    numbers = Numbers(relay)
    publish(relay, topic, "first")
    eventually(lambda: numbers.now("asyncio_tasks"))
    before = numbers.now("asyncio_tasks")
    clients = [socket.create_connection(relay.address, timeout=60) for _ in range(1000)]
    for client in clients:
        client.sendall(f"GET {topic} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    eventually(lambda: numbers.now("stream_open_connections") == 1000)
    for number in range(3):
        publish(relay, topic, number)
    for client in clients[::2]:
        whole = b""
        while b"data: 2\n\n" not in whole:
            whole += client.recv(65536)
    for number, client in enumerate(clients):  # half say good-bye, half vanish
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    eventually(lambda: numbers.now("stream_open_connections") == 0)
    assert numbers.now("stream_closed_total", outcome="client_disconnected") == 1000
    assert numbers.now("stream_events_total", direction="out") == 3000
    for layer in ("app", "transport", "kernel"):
        eventually(lambda layer=layer: numbers.now("stream_buffered_bytes", layer=layer) == 0)
    eventually(lambda: numbers.now("asyncio_tasks") <= before)
    sockets = sum("socket:" in str(link.readlink()) for link in Path(f"/proc/{relay.process.pid}/fd").iterdir())
    assert sockets < 20
