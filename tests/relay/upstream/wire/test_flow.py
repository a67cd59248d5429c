"""A body that flows: passed to its callback as it comes, to its end or its error, and never after `keep` or `close`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from relay.errors import UpstreamError, UpstreamProtocolError, UpstreamUnreachableError
from relay.upstream.options import Timeouts
from relay.upstream.wire.connection import UpstreamConnection
from relay.upstream.wire.pool import Pool
from tests.scripted import listening

PATIENT = Timeouts(pool=5, connect=5, silence=5)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Use = Callable[[Pool, UpstreamConnection], Awaitable[None]]


class Sink:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.over: asyncio.Future[UpstreamError | None] = asyncio.get_running_loop().create_future()

    def flow(self, connection: UpstreamConnection) -> None:
        connection.flow(self.pieces.append, self.over.set_result)  # set_result raises where `on_end` is called twice

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def run(serve: Serve, use: Use, **options: int) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            finally:
                writer.close()

        async with listening(answer) as port:
            bounds = {"read_bytes": 4096, "flow_bytes": 16384, "limit_bytes": 4096, **options}
            pool = Pool(max_connections=2, receive_buffer_bytes=16384, rest_seconds=0.0, **bounds)
            origin = ("http", "127.0.0.1", port)
            try:
                connection, _ = await pool.request(origin, b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)
                await asyncio.wait_for(use(pool, connection), 60)
            finally:
                await pool.close()

    asyncio.run(main())


def answering(*pieces: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for each in pieces:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(0.001)

    return serve


@pytest.mark.parametrize("cut", ["whole", "piece by piece", "byte by byte"])
def test_every_byte_is_handed_over_and_the_end_once(cut: str) -> None:
    said = [HEAD, piece(b"one"), piece(b"two"), piece(b"three"), END]
    if cut == "whole":
        said = [b"".join(said)]
    elif cut == "byte by byte":
        said = [bytes([byte]) for byte in b"".join(said)]

    async def use(pool: Pool, connection: UpstreamConnection) -> None:
        sink = Sink()
        sink.flow(connection)
        assert await sink.over is None
        assert sink.body == b"onetwothree"
        pool.release(connection)
        assert connection.usable

    run(answering(*said), use)


def test_what_was_read_before_is_not_handed_over_again() -> None:
    async def use(pool: Pool, connection: UpstreamConnection) -> None:
        first = await connection.read()
        sink = Sink()
        sink.flow(connection)
        await sink.over
        assert (first, sink.body) == (b"one", b"two")

    run(answering(HEAD + piece(b"one"), piece(b"two"), END), use)


@pytest.mark.parametrize("asked", [False, True], ids=["nobody asked to wait", "somebody asked to wait"])
def test_a_body_that_came_beyond_the_limit_before_it_flowed_flows_to_its_end(asked: bool) -> None:
    """Its client was waited for: the connection had stopped reading by itself, and nobody else knows that it has."""
    long = b"x" * 3_000_000  # more than the limit and the sockets' buffers take

    async def use(pool: Pool, connection: UpstreamConnection) -> None:
        while not connection._paused:
            await asyncio.sleep(0.01)
        if asked:
            connection.pause()
        sink = Sink()
        sink.flow(connection)
        if asked:
            before = len(sink.body)
            await asyncio.sleep(0.05)
            assert len(sink.body) == before
            connection.resume()
        assert await asyncio.wait_for(sink.over, 30) is None
        assert sink.body == long

    run(answering(HEAD, *(piece(long[at : at + 100_000]) for at in range(0, len(long), 100_000)), END), use)


@pytest.mark.parametrize(
    ("broken", "error"),
    [(b"", UpstreamUnreachableError), (b"zz\r\n", UpstreamProtocolError)],
    ids=["broken off", "not HTTP"],
)
def test_what_came_before_an_error_is_handed_over_and_then_the_error(broken: bytes, error: type[UpstreamError]) -> None:
    async def use(pool: Pool, connection: UpstreamConnection) -> None:
        sink = Sink()
        sink.flow(connection)
        assert isinstance(await sink.over, error)
        assert sink.body == b"one"
        pool.release(connection)
        assert not connection.usable

    run(answering(HEAD, piece(b"one"), broken), use)


def test_nothing_is_handed_over_after_close_or_keep() -> None:
    async def use(pool: Pool, connection: UpstreamConnection) -> None:
        sink = Sink()
        sink.flow(connection)
        connection.keep()
        assert await connection.read() == b"one"
        sink.flow(connection)
        pool.release(connection)
        await asyncio.sleep(0.02)
        assert not sink.pieces
        assert not sink.over.done()

    run(answering(HEAD, piece(b"one"), *[piece(b"more")] * 100), use)


def test_a_pause_stops_the_upstream_and_a_resume_lets_it_go_on() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for _ in range(500):
            writer.write(piece(b"x" * 65536))
            await writer.drain()
            sent += 65536
        writer.write(END)
        await writer.drain()

    async def use(pool: Pool, connection: UpstreamConnection) -> None:
        sink = Sink()
        sink.flow(connection)
        connection.pause()
        before = -1
        while before != sent:  # until the kernel's buffers are full
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 500 * 65536
        taken = len(sink.body)
        await asyncio.sleep(0.05)
        assert len(sink.body) == taken
        connection.resume()
        await sink.over
        assert len(sink.body) == 500 * 65536

    run(serve, use)


def test_a_connection_that_was_paused_at_its_end_is_read_again_by_the_next_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"one", b"two"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + piece(answer) + END)

    async def use(pool: Pool, connection: UpstreamConnection) -> None:
        sink = Sink()
        connection.flow(lambda _: connection.pause(), sink.over.set_result)
        await sink.over
        pool.release(connection)
        _, port = connection._transport.get_extra_info("peername")  # type: ignore[union-attr]
        again, _ = await pool.request(("http", "127.0.0.1", port), b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)
        assert again is connection
        assert await again.read() == b"two"

    run(serve, use)
