"""The time-outs of streams: a silent upstream, a client that reads nothing, a maximum duration; and heartbeats."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

from tests.scripted import HEAD, chunk, events, serving

Served = Any
Start = Any
Eventually = Callable[[Callable[[], bool]], None]

STREAMS = 40
WAITS = [
    "--no-diagnostics", "--log-level", "debug", "--upstream-retries", "0", "--read-timeout-seconds", "1",
    "--write-timeout-seconds", "0.6", "--heartbeat-seconds", "0.2",
]  # fmt: skip


@pytest.fixture(scope="module")
def waiting(start_shared: Start) -> Served:
    return start_shared(*WAITS, announced=2)


def received(connection: socket.socket) -> bytes:
    """The whole response: up to its last chunk, since the connection itself is kept."""
    whole = b""
    while not whole.endswith(b"\r\n0\r\n\r\n"):
        chunk = connection.recv(65536)
        assert chunk, whole[-200:]
        whole += chunk
    return whole


def ended(relay: Served, outcome: str) -> list[dict[str, Any]]:
    return list(relay.endings(outcome=outcome))


def test_a_silent_upstream_is_bridged_by_heartbeats_and_then_ended(waiting: Served, eventually: Eventually) -> None:
    answer = waiting.chat("sim:pace=0,first=0,fault=stall@2")
    blocks = answer.body.decode().split("\n\n")
    assert blocks.count(": hb") >= 2
    assert [block[:6] for block in blocks[:2]] == ["data: ", "data: "]
    assert '"code":"upstream_timeout"' in blocks[-2]
    eventually(lambda: bool(ended(waiting, "timeout")))


def test_a_heartbeat_is_never_inside_of_an_event(start: Start) -> None:
    relay = start(*WAITS, "--max-event-bytes", "8000", announced=2)
    whole = relay.chat("sim:pace=2,first=0,size=2000,fault=endless@2").body.decode()
    unfinished = whole.split("data: ")[3]
    assert len(unfinished) > 4000  # sent in pieces, with pauses longer than a heartbeat's
    assert ": hb" not in unfinished
    assert ": hb" in whole


def test_the_first_heartbeat_starts_the_response_for_event_source_only(start: Start) -> None:
    relay = start("--no-diagnostics", "--heartbeat-seconds", "0.2", announced=2)
    answer = relay.get("/stream?prompt=hi&model=sim:events=2,pace=0,first=1")
    assert answer.body.startswith(b": hb\n\n")
    assert answer.events[-1] == "[DONE]"
    answer = relay.chat("sim:events=2,pace=0,first=1")
    assert answer.body.startswith(b"data: ")


def test_a_client_that_takes_nothing_is_given_up(waiting: Served, eventually: Eventually) -> None:
    with waiting.open("sim:events=inf,pace=0,size=4000"):
        eventually(lambda: bool(ended(waiting, "slow_client")))
        eventually(lambda: waiting.stats()["open"] == 0)
    assert "Traceback" not in waiting.log()
    assert "without completing response" not in waiting.log()


def test_a_client_that_does_not_take_the_upstreams_failure_is_given_up_too(
    start: Start, eventually: Eventually
) -> None:
    """Of some of these streams the failure comes in one piece with what fills the client's connection: its event waits, too."""

    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + chunk(events(100 + 25 * number)) + b"no size\r\n")

    with serving(script) as (upstream, _, _), ExitStack() as opened:
        # In two write time-outs the kernel gives such a client up; the relay waits for that for a second.
        relay = start(*WAITS, "--write-timeout-seconds", "3", "--upstream-base-url", f"{upstream}/v1", announced=2)
        clients = [opened.enter_context(silent(relay.address)) for _ in range(STREAMS)]
        eventually(lambda: len(relay.endings()) == STREAMS)
        assert {ending["outcome"] for ending in relay.endings()} == {"slow_client", "upstream_error"}
        for client in clients:
            whole = b""
            with suppress(ConnectionResetError):  # how an answer ends that is not complete
                whole = received(client)
            assert not whole or b'"code":"upstream_protocol"' in whole
        assert "without completing response" not in relay.log()


@contextmanager
def silent(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A client that has asked for a stream, and whose kernel takes little of it."""
    with socket.socket() as connection:
        connection.settimeout(60)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        body = b'{"model": "any", "messages": [], "stream": true}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        yield connection


def test_a_client_that_takes_little_is_not(waiting: Served) -> None:
    before = len(ended(waiting, "slow_client"))
    with waiting.open("sim:events=60,pace=0,size=4000") as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        whole = b""
        while b"[DONE]" not in whole:
            whole = whole[-10:] + connection.recv(4096)
            time.sleep(0.005)
    assert len(ended(waiting, "slow_client")) == before


def test_what_was_read_ahead_arrives_whole(start: Start, eventually: Eventually) -> None:
    relay = start("--no-diagnostics", "--stream-budget-bytes", "1048576", "--read-ahead-bytes", "100000", announced=2)
    with relay.open("sim:events=100,pace=0,size=3000,seed=4") as connection:
        time.sleep(0.2)
        whole = received(connection)
    assert whole.count(b"chat.completion.chunk") == 102
    answer = relay.chat("sim:events=9,pace=0,size=3000,fault=disconnect@5")
    assert len(answer.events) == 6  # what came before the failure, and the failure
    with relay.open("sim:events=inf,pace=0,size=4000") as leaves:
        assert leaves.recv(10)
    eventually(lambda: relay.stats()["open"] == 0)
    assert "Traceback" not in relay.log()


def test_no_stream_lives_for_ever(start: Start, eventually: Eventually) -> None:
    relay = start("--no-diagnostics", "--stream-timeout-seconds", "0.6", announced=2)
    with relay.open("sim:events=inf,pace=50,first=0") as reading, relay.open("sim:events=inf,pace=0,size=4000"):
        whole = received(reading)
        assert b'"code":"stream_timeout"' in whole
        assert whole.endswith(b"0\r\n\r\n")
        eventually(lambda: len(ended(relay, "timeout")) == 2)
        eventually(lambda: relay.stats()["open"] == 0)
    assert "without completing response" not in relay.log()


@pytest.fixture
def chatter() -> Iterator[str]:
    """An upstream that says nothing but comments, ten a second, on each connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        over = threading.Event()

        def serve() -> None:
            listener.settimeout(60)
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {}\n\n")
                try:
                    while not over.wait(0.1):
                        connection.sendall(b": still here\n\n")
                except OSError:
                    return  # the relay has hung up

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        over.set()
        thread.join(60)


def test_an_upstream_that_sends_only_comments_is_idle(start: Start, chatter: str) -> None:
    relay = start("--no-diagnostics", "--idle-timeout-seconds", "0.6", "--upstream-base-url", chatter, announced=2)
    answer = relay.chat("any")
    assert b": still here" in answer.body
    assert b'"code":"idle_timeout"' in answer.body
