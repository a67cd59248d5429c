"""The HTTP client for upstreams against real servers on real sockets: bodies, refused answers, kept connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeoutError, UpstreamUnreachableError
from relay.upstream.options import Timeouts
from relay.upstream.wire.answer import MAX_HEAD_BYTES, AnswerReader
from relay.upstream.wire.connection import UpstreamConnection
from relay.upstream.wire.pool import Pool
from tests.scripted import listening

READ_BYTES = 16 * 1024
PATIENT = Timeouts(pool=5, connect=5, silence=5)
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def raw(*pieces: bytes, keep: bool = False) -> Answer:
    """A server that reads each request's head and answers with these pieces, a packet each."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not keep:
                return

    return answer


@contextlib.asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[int]]]:
    """A port, and a list with one entry for each connection that was accepted."""
    accepted: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(len(accepted))
        handlers.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    handlers: set[Any] = set()
    async with listening(handle, tls) as port:
        yield port, accepted
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


@contextlib.asynccontextmanager
async def pool(**options: Any) -> AsyncIterator[Pool]:
    made = Pool(
        **{
            "max_connections": 10,
            "receive_buffer_bytes": 64 * 1024,
            "read_bytes": READ_BYTES,
            "flow_bytes": READ_BYTES,
            "limit_bytes": 16 * 1024,
            "rest_seconds": 0.0,
            **options,
        }
    )
    try:
        yield made
    finally:
        await made.close()


async def get(pool: Pool, port: int, timeouts: Timeouts = PATIENT) -> tuple[int, bytes]:
    origin = ("http", "127.0.0.1", port)
    connection, head = await pool.request(origin, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"", timeouts)
    try:
        return head.status, await whole(connection)
    finally:
        pool.release(connection)


async def whole(connection: UpstreamConnection) -> bytes:
    body = b""
    while chunk := await connection.read():
        body += chunk
    return body


def once(answer: Answer, timeouts: Timeouts = PATIENT) -> tuple[int, bytes]:
    async def run() -> tuple[int, bytes]:
        async with serving(answer) as (port, _), pool() as made:
            return await get(made, port, timeouts)

    return asyncio.run(run())


@pytest.mark.parametrize("status", [b"000", b"003", b"099"])
@pytest.mark.parametrize("framing", [b"", b"content-length: 4\r\n", b"transfer-encoding: chunked\r\n"])
def test_a_body_behind_a_status_below_100_is_refused(status: bytes, framing: bytes) -> None:
    """The parser takes such a status, and a body with it, for which there is no head: whoever asked waited in a busy loop, and
    the whole relay with him."""
    reader = AnswerReader()
    body = b"4\r\nbody\r\n" if b"chunked" in framing else b"body"
    answer = b"HTTP/1.1 " + status + b" Odd\r\n" + framing + b"\r\n" + body
    assert isinstance(reader.feed(memoryview(answer)), UpstreamProtocolError)
    assert reader.parts == []
    reader.close()
    with pytest.raises(UpstreamProtocolError):
        once(raw(answer))


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
    ids=["length", "chunked", "until close", "1.0", "early hints", "no content"],
)
@pytest.mark.parametrize("cut", ["whole", "byte by byte"])
def test_a_body_is_the_same_however_it_is_framed_and_cut(response: bytes, body: bytes, cut: str) -> None:
    pieces = [response] if cut == "whole" else [response[i : i + 1] for i in range(len(response))]
    status, read = once(raw(*pieces))
    assert (status, read) == (204 if b"204" in response else 200, body)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
    ],
)
def test_a_response_that_breaks_off_is_an_error(response: bytes) -> None:
    with pytest.raises(UpstreamUnreachableError):
        once(raw(response))


@pytest.mark.parametrize(
    "response", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_what_is_not_http_is_refused(response: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        once(raw(response))


def test_a_head_without_end_is_refused_at_its_limit() -> None:
    lines = b"X-Filler: " + b"x" * 1000 + b"\r\n"
    with pytest.raises(UpstreamProtocolError, match=str(MAX_HEAD_BYTES)):
        once(raw(b"HTTP/1.1 200 OK\r\n", *[lines] * 200))


def test_a_head_of_very_many_fields_is_refused() -> None:
    """Each is three objects here, of four bytes there."""
    fields = b"a:\r\n" * 1000
    with pytest.raises(UpstreamProtocolError, match="not HTTP"):
        once(raw(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"))


def test_a_large_request_waits_where_it_is_and_not_in_the_transport() -> None:
    body = b"x" * 8_000_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 8000000" in head
        assert await reader.readexactly(len(body)) == body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def run() -> tuple[int, bytes]:
        async with serving(answer) as (port, _), pool() as made:
            origin = ("http", "127.0.0.1", port)
            head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            asking = asyncio.create_task(made.request(origin, head, body, PATIENT))
            await asyncio.sleep(0.3)
            (connection,) = made._in_use
            assert connection._transport is not None
            assert connection._transport.get_write_buffer_size() <= 3 * 64 * 1024
            go_on.set()
            answered, _ = await asking
            return 200, await whole(answered)

    go_on = asyncio.Event()
    assert asyncio.run(run())[1] == b"ok"


def test_a_second_answer_right_behind_the_first_goes_to_nobody() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")  # what it says then was said before this came
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot yours")

    async def run() -> list[tuple[int, bytes]]:
        async with serving(answer) as (port, _), pool(rest_seconds=60.0) as made:
            return [await get(made, port) for _ in range(3)]

    assert asyncio.run(run()) == [(200, b"ok")] * 3


def test_an_answer_before_the_question_goes_to_nobody() -> None:
    """A second answer to the request before, which comes while the next request is on its way."""
    body = b"x" * 8_000_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        while head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            head = await reader.readuntil(b"\r\n\r\n")
        if len(accepted) == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot yours")
            await reader.read()
            return
        await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nyours")

    accepted: list[int] = []

    async def run() -> bytes:
        async with serving(answer) as (port, connections), pool() as made:
            accepted_by_server(connections)
            assert await get(made, port) == (200, b"ok")
            origin = ("http", "127.0.0.1", port)
            head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            connection, _ = await made.request(origin, head, body, PATIENT)
            return await whole(connection)

    def accepted_by_server(connections: list[int]) -> None:
        nonlocal accepted
        accepted = connections

    assert asyncio.run(run()) == b"yours"


def test_an_idle_connection_is_closed_in_time_though_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.upstream.wire.pool.KEEP_SECONDS", 0.2)
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert await reader.read() == b""
        closed.set()

    async def run() -> None:
        async with serving(answer) as (port, _), pool() as made:
            assert await get(made, port) == (200, b"ok")
            await asyncio.wait_for(closed.wait(), 60)
            assert not made._idle

    asyncio.run(run())


def test_a_head_that_comes_in_the_moment_of_its_deadline_has_come() -> None:
    async def run() -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            async with pool() as made:
                patience = Timeouts(pool=5, connect=5, silence=0.2)
                asking = asyncio.create_task(get(made, listening.getsockname()[1], patience))
                server, _ = await loop.sock_accept(listening)
                with server:
                    await loop.sock_recv(server, 1000)
                    await loop.sock_sendall(server, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
                    time.sleep(0.3)  # the loop then sees both in one turn
                    await asyncio.sleep(0.05)
                    await loop.sock_sendall(server, b"llo")
                    return await asking

    assert asyncio.run(run()) == (200, b"hello")


def test_a_silent_upstream_and_a_full_pool_are_time_outs() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        async with serving(silent) as (port, _), pool(max_connections=1) as made:
            with pytest.raises(UpstreamTimeoutError, match="did not answer"):
                await get(made, port, Timeouts(pool=5, connect=5, silence=0.05))
            waiting = asyncio.create_task(get(made, port))
            await asyncio.sleep(0.05)
            with pytest.raises(UpstreamTimeoutError, match="in use"):
                await get(made, port, Timeouts(pool=0.05, connect=5, silence=5))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(UpstreamTimeoutError, match="did not answer"):  # the place was given back
                await get(made, port, Timeouts(pool=1, connect=5, silence=0.05))

    asyncio.run(run())


def test_nobody_listening_is_a_connect_error() -> None:
    async def run() -> None:
        async with serving(raw(b"")) as (port, _):
            pass
        async with pool() as made:
            with pytest.raises(UpstreamUnreachableError, match="cannot be reached") as raised:
                await get(made, port)
            assert str(port) not in str(raised.value)  # a client reads it
            assert isinstance(raised.value.__cause__, ConnectionRefusedError)

    asyncio.run(run())


def test_a_connection_is_used_again_after_a_whole_body_and_not_after_half() -> None:
    answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello", keep=True)

    async def run() -> None:
        async with serving(answer) as (port, accepted), pool() as made:
            for _ in range(5):
                assert await get(made, port) == (200, b"hello")
            assert len(accepted) == 1
            origin = ("http", "127.0.0.1", port)
            connection, _ = await made.request(origin, b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)
            made.release(connection)  # its body was not read
            assert await get(made, port) == (200, b"hello")
            assert len(accepted) == 2

    asyncio.run(run())


def test_a_response_that_nobody_asked_for_ends_the_connection() -> None:
    twice = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 2

    async def run() -> None:
        async with serving(raw(twice, keep=True)) as (port, accepted), pool() as made:
            for _ in range(3):
                assert await get(made, port) == (200, b"ok")
            assert len(accepted) == 3

    asyncio.run(run())


def test_an_idle_connection_that_the_upstream_closed_is_replaced_without_a_word() -> None:
    closing = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def run() -> None:
        async with serving(closing) as (port, accepted), pool() as made:
            for _ in range(10):
                assert await get(made, port) == (200, b"ok")
            assert len(accepted) >= 10

    asyncio.run(run())


def test_what_is_not_read_stays_with_the_upstream() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent += 10_000

    async def run() -> None:
        async with serving(endless) as (port, _), pool() as made:
            connection, _ = await made.request(("http", "127.0.0.1", port), b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            assert connection.waiting_bytes <= 16 * 1024 + READ_BYTES
            first = await connection.read()
            assert first == b"x" * len(first)
            while sent == before:  # reading lets it go on
                await connection.read()
            made.release(connection)

    asyncio.run(run())


def test_closing_tells_whoever_reads() -> None:
    async def run() -> None:
        headers_only = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", keep=True)
        async with serving(headers_only) as (port, _), pool() as made:
            connection, _ = await made.request(("http", "127.0.0.1", port), b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)
            reading = asyncio.create_task(connection.read())
            await asyncio.sleep(0.05)
            made.release(connection)
            with pytest.raises(UpstreamUnreachableError):
                await asyncio.wait_for(reading, 60)

    asyncio.run(run())


@pytest.mark.parametrize(
    "endless",
    [b"x: y\r\n", b"x" * 1024, b"1;" + b"e" * 1024],
    ids=["trailers", "one trailer", "an extension of a chunk"],
)
@pytest.mark.parametrize("flows", [True, False])
def test_what_is_no_body_has_an_end(endless: bytes, flows: bool) -> None:
    """A response that goes on after its body for ever: the connection is given up at the size of a head."""
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        last = b"" if endless.startswith(b"1;") else b"0\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + last)
        while True:
            writer.write(endless)
            sent += len(endless)
            await writer.drain()

    async def run() -> None:
        async with serving(answer) as (port, _), pool() as made:
            connection, _ = await made.request(("http", "127.0.0.1", port), b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)
            over: asyncio.Future[UpstreamError | None] = asyncio.get_running_loop().create_future()
            if flows:
                connection.flow(lambda _: None, over.set_result)
                error = await asyncio.wait_for(over, 30)
                assert isinstance(error, UpstreamProtocolError)
                assert str(MAX_HEAD_BYTES) in str(error)
            else:
                with pytest.raises(UpstreamProtocolError, match=str(MAX_HEAD_BYTES)):
                    await asyncio.wait_for(whole(connection), 30)
            made.release(connection)

    asyncio.run(run())
    assert sent < 32 * 1024 * 1024  # the bound, and what the kernel took


def test_a_trailer_is_no_header() -> None:
    answer = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n")
    assert once(answer) == (200, b"hello")


def test_an_answer_that_nobody_asked_for_goes_to_nobody() -> None:
    """It has come to the socket of a connection that is kept, and the loop has not read it when the next request is made."""
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    another = one.replace(b"hello", b"wrong")
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(one)

    async def run() -> None:
        async with serving(answer) as (port, accepted), pool() as made:
            assert await get(made, port) == (200, b"hello")
            # Straight into the kernel, and no turn of the loop until the next request is on its way.
            with socket.socket(fileno=os.dup(writers[0].get_extra_info("socket").fileno())) as kept:
                kept.sendall(another)
            assert await get(made, port) == (200, b"hello")
            assert len(accepted) == 2

    asyncio.run(run())


def test_tls_is_spoken_and_its_certificate_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async def ask(trusting: bool) -> bytes:
        async with serving(answer, server) as (port, _), pool() as made:
            if trusting:
                made.tls = ssl.create_default_context(cafile=str(certificate))
            connection, _ = await made.request(("https", "localhost", port), b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)
            body = await whole(connection)
            made.release(connection)
            return body

    assert asyncio.run(ask(trusting=True)) == b"hello"
    with pytest.raises(UpstreamUnreachableError) as raised:
        asyncio.run(ask(trusting=False))
    assert "certificate verify failed" in str(raised.value.__cause__)


def test_without_a_descriptor_for_its_certificates_an_upstream_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_descriptors() -> ssl.SSLContext:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("relay.upstream.wire.pool.create_ssl_context", no_descriptors)

    async def ask() -> None:
        async with pool() as made:
            await made.request(("https", "localhost", 1), b"GET / HTTP/1.1\r\n\r\n", b"", PATIENT)

    with pytest.raises(UpstreamUnreachableError):
        asyncio.run(ask())


class NoTransport(asyncio.Transport):
    """What the parser's side needs of a transport when bytes are fed by hand."""

    closed = False

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [
                    b"HTTP/1.1 200 OK\r\n",
                    b"\r\n",
                    b"Content-Length: 3\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"5\r\nhello\r\n",
                    b"0\r\n\r\n",
                ]
            ),
        ),
        max_size=12,
    )
)
def test_no_bytes_of_an_upstream_raise_anything_but_a_transport_error(pieces: list[bytes]) -> None:
    async def run() -> None:
        connection = UpstreamConnection(READ_BYTES, READ_BYTES, 1024)
        connection.connection_made(NoTransport())
        asking = asyncio.create_task(connection.request(b"GET / HTTP/1.1\r\n\r\n", b""))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.get_buffer(-1)[: len(piece)] = piece
            connection.buffer_updated(len(piece))
        connection.connection_lost(None)
        with contextlib.suppress(UpstreamError):
            await asyncio.wait_for(asking, 60)
            await asyncio.wait_for(whole(connection), 60)

    asyncio.run(run())
