"""What a connection may hold and how long it may wait, before anybody is asked for a token. Real sockets, a clock to turn."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from diagnostics.monitor.web import edge as edges
from diagnostics.monitor.web.edge import EdgeServer

WORDS = b"x" * 1024 * 1024


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with its request's body; `/large` with 64 MiB, `/busy` not before its client leaves."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    while scope["path"] == "/busy" and message["type"] != "http.disconnect":
        message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/large":
        for _ in range(64):
            await send({"type": "http.response.body", "body": WORDS, "more_body": True})
    await send({"type": "http.response.body", "body": body})


class Turned:
    """A server, and its edge's clock: `later` turns it on, and waits until the edge has looked at it."""

    def __init__(self, server: EdgeServer, address: tuple[str, int]) -> None:
        self.edge = server.edge
        self.address = address
        self.shift = 0.0
        server.edge.clock = lambda: time.monotonic() + self.shift

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def later(self, seconds: float) -> None:
        self.edge.look()  # whatever has begun, has begun before
        self.shift += seconds
        self.edge.look()


@asynccontextmanager
async def served(guessing: set[Any]) -> AsyncIterator[Turned]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = EdgeServer(app, guessing)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    turned = Turned(server, listener.getsockname())
    try:
        yield turned
    finally:
        turned.shift += 1000
        server.leave()
        await serving


def run(check: Callable[[Turned], Awaitable[None]], guessing: set[Any] | None = None) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), served(set() if guessing is None else guessing) as turned:
            await check(turned)

    asyncio.run(whole())


async def until(met: Callable[[], bool]) -> None:
    while not met():
        await asyncio.sleep(0.01)


def test_a_head_without_end_is_refused_at_its_bound() -> None:
    async def check(turned: Turned) -> None:
        _, writer = await turned.connected()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")

        async def go_on() -> None:
            for _ in range(64 * edges.MAX_HEAD_BYTES // 4096):
                writer.write(b"a:\r\n" * 1024)
                await writer.drain()
                await asyncio.sleep(0)

        with pytest.raises(ConnectionError):
            await go_on()
        assert not turned.edge

    run(check)


@pytest.mark.parametrize(
    ("sent", "seconds", "says"),
    [
        (b"", edges.HEAD_SECONDS, b""),
        (b"GET / HTTP/1.1\r\nHost: loc", edges.HEAD_SECONDS, b"HTTP/1.1 408"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc", edges.BODY_SECONDS, b"HTTP/1.1 408"),
    ],
    ids=["silent", "half a head", "half a body"],
)
def test_who_does_not_go_on_is_given_up(sent: bytes, seconds: float, says: bytes) -> None:
    async def check(turned: Turned) -> None:
        reader, writer = await turned.connected()
        writer.write(sent)
        await until(
            lambda: (
                len(turned.edge) == 1
                and (not sent or any(each.cycle or each.conn.trailing_data[0] for each in turned.edge._open))
            )
        )
        await turned.later(seconds / 2)
        assert len(turned.edge) == 1
        await turned.later(seconds)
        try:
            assert (await reader.read()).startswith(says)
        except ConnectionResetError:
            assert not says
        await until(lambda: not turned.edge)
        writer.close()

    run(check)


def test_a_dripping_head_does_not_prolong_its_time() -> None:
    async def check(turned: Turned) -> None:
        reader, writer = await turned.connected()
        writer.write(b"GET / HTTP/1.1\r\n")
        drips = 0
        while turned.edge:
            drips += 1
            writer.write(b"a: b\r\n")
            await asyncio.sleep(0.05)
            await turned.later(edges.HEAD_SECONDS / 3)
            await asyncio.sleep(0.05)
        assert 3 <= drips <= 4
        assert (await reader.read()).startswith(b"HTTP/1.1 408")
        writer.close()

    run(check)


def test_an_answer_of_which_nothing_is_taken_is_given_up_and_a_slow_reader_is_not() -> None:
    async def check(turned: Turned) -> None:
        readers = []
        for _ in range(2):
            client = socket.create_connection(turned.address)
            client.setblocking(False)
            client.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            readers.append(client)
        slow = readers[1]
        await until(
            lambda: len(turned.edge) == 2 and all(each.flow and each.flow.write_paused for each in turned.edge._open)
        )
        loop = asyncio.get_running_loop()
        for _ in range(3):
            await turned.later(edges.STUCK_SECONDS * 0.6)
            for _ in range(40):  # enough for the kernel's buffers to take more
                assert await loop.sock_recv(slow, 262144)
        await until(lambda: len(turned.edge) == 1)
        for client in readers:
            client.close()

    run(check)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        b"GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["silent", "half a head", "half a body", "a guess"],
)
def test_a_new_connection_takes_the_place_of_one_that_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(edges, "MAX_CONNECTIONS", 3)
    guessing: set[Any] = set()

    async def check(turned: Turned) -> None:
        first = await turned.connected()
        first[1].write(sent)
        if b"busy" in sent:
            guessing.add(first[1].get_extra_info("sockname"))
        busy = []
        for _ in range(3):  # the third has the first one's place
            _, writer = await turned.connected()
            writer.write(b"GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n")
            busy.append(writer)
            await until(lambda: sum(not each.is_waited_for for each in turned.edge._open) >= len(busy))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await first[0].readexactly(1)
        refused, fifth = await turned.connected()
        assert (await refused.read()).startswith(b"HTTP/1.1 503")
        assert len(turned.edge) == 3
        for each in (*busy, fifth, first[1]):
            each.close()

    run(check, guessing)


def test_a_look_that_fails_ends_neither_the_server_nor_the_other_looks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(turned: Turned) -> None:
        _, silent = await turned.connected()
        await until(lambda: len(turned.edge) == 1)
        (broken,) = turned.edge._open
        monkeypatch.setattr(broken, "look", lambda now: 1 // 0)
        reader, other = await turned.connected()
        await until(lambda: len(turned.edge) == 2)
        for _ in range(20):
            await turned.later(edges.HEAD_SECONDS)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert list(turned.edge._open) == [broken]
        monkeypatch.undo()
        for each in (silent, other):
            each.close()

    run(check)
    told = [record.getMessage() for record in caplog.records if "a look at a connection" in record.getMessage()]
    assert len(told) == 2  # the first, and the tenth
    assert "failed 10 times: ZeroDivisionError" in told[1]


def test_what_is_no_request_is_a_400_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def check(turned: Turned) -> None:
        for sent in (
            b"\x16\x03\x01\x00\xa5\x01\x00",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ):
            reader, writer = await turned.connected()
            writer.write(sent + b"\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
            writer.close()

    run(check)
    assert not [record for record in caplog.records if record.exc_info]
