"""What the upstream does wrong: one coroutine for each kind of fault, in a table.

A fault is given the connection and the script of the request that it is to answer. What it writes are raw bytes, so that it can
break any rule of HTTP and of Server-Sent Events. `HARMLESS` are those that a client must not notice: its stream is whole.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import payload

__all__ = ["FAULTS", "HARMLESS", "Connection", "Script"]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# More than anything that has no end may be let through of.
ENDLESS_BYTES = 64 * 1024 * 1024
# Shorter than a connection of the relay's rests between two requests.
UNASKED_SECONDS = 0.015
# Longer than the relay under test waits for an upstream.
LONG_SECONDS = 30.0 * float(os.environ.get("CHAOS_PATIENCE", "1"))


@dataclass(frozen=True, slots=True)
class Script:
    """What a request asks for: by the name of its model, `fault:seed:count`; `streams` by its JSON."""

    fault: str
    seed: int
    count: int
    streams: bool

    @classmethod
    def of(cls, model: str, *, streams: bool) -> Script:
        fault, seed, count = model.split(":")
        return cls(fault, int(seed), int(count), streams)


class Connection:
    """The upstream's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, script: Script) -> None:
        self.reader = reader
        self.writer = writer
        self.script = script
        self.chance = random.Random(script.seed)
        self.keeps = False  # another request may follow
        self.wrote_at = 0.0  # by the loop's clock, the last piece of `send`

    async def send(self, data: bytes) -> None:
        """In pieces cut anywhere, now and then."""
        if len(data) < 200_000 and self.chance.random() < 0.2:
            at = self.chance.randrange(len(data) + 1)
            for piece in (data[:at], data[at:]):
                self.wrote_at = asyncio.get_running_loop().time()
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)
            return
        self.wrote_at = asyncio.get_running_loop().time()
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self) -> None:
        """The answer as it should be."""
        script = self.script
        if not script.streams:
            body = payload.answer(script.seed, script.count * 1000)
            await self.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            )
            await self.send(body)
        else:
            await self.send(HEAD)
            for event in payload.events(script.seed, script.count):
                await self.send(chunk(event))
            await self.send(chunk(payload.DONE) + b"0\r\n\r\n")
        self.keeps = True

    def body(self) -> bytes:
        """All of the answer's bytes, unframed."""
        script = self.script
        return (
            payload.stream(script.seed, script.count)
            if script.streams
            else payload.answer(script.seed, script.count * 1000)
        )

    def framed(self) -> bytes:
        """All of the answer's bytes, with its head, chunked."""
        return HEAD + b"".join(chunk(event) for event in payload.events(self.script.seed, self.script.count))

    def reset(self) -> None:
        made: socket.socket = self.writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def endless(self, piece: bytes) -> None:
        """The same again and again until nobody takes it."""
        for _ in range(ENDLESS_BYTES // len(piece)):
            await self.send(piece)

    async def gone(self) -> None:
        """Wait until the relay gives the connection up."""
        async with asyncio.timeout(LONG_SECONDS):
            while await self.reader.read(65536):
                pass


Fault = Callable[[Connection], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def none(connection: Connection) -> None:
    await connection.whole()


async def late(connection: Connection) -> None:
    await asyncio.sleep(connection.chance.random())
    await connection.whole()


async def silent(connection: Connection) -> None:
    await connection.gone()


async def slow(connection: Connection) -> None:
    """A piece now and then."""
    body = connection.framed() + chunk(payload.DONE) + b"0\r\n\r\n"
    at = 0
    while at < len(body):
        size = connection.chance.randrange(1, max(2, len(body) // 20))
        connection.writer.write(body[at : at + size])
        await connection.writer.drain()
        at += size
        await asyncio.sleep(0.02)
    connection.keeps = True


async def crlf(connection: Connection) -> None:
    script = connection.script
    await connection.send(HEAD + chunk(payload.stream(script.seed, script.count, b"\r\n")) + b"0\r\n\r\n")
    connection.keeps = True


async def byte_order_mark(connection: Connection) -> None:
    await connection.send(HEAD + chunk(b"\xef\xbb\xbf" + connection.body()) + b"0\r\n\r\n")
    connection.keeps = True


async def until_close(connection: Connection) -> None:
    """Neither a length nor chunks."""
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + connection.body())


async def tiny_chunks(connection: Connection) -> None:
    """Each byte of the first events is a chunk."""
    body = connection.body()
    await connection.send(HEAD + b"".join(chunk(body[at : at + 1]) for at in range(min(len(body), 3000))))
    await connection.send((chunk(body[3000:]) if body[3000:] else b"") + b"0\r\n\r\n")
    connection.keeps = True


async def goes_on_after_the_end(connection: Connection) -> None:
    await connection.send(HEAD + chunk(connection.body()))
    await connection.endless(chunk(b"data: nobody asked\n\n" * 50))


async def early_hints(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 20)
    await connection.whole()


async def unasked_answer(connection: Connection) -> None:
    """A second answer behind the first, on a connection that is kept; none where the machine lets it come too late.

    The relay lets a connection rest for 20 ms before it sends the next request. What comes later is that request's answer as
    far as HTTP/1.1 can tell, and whoever gets it would complain of the relay.
    """
    await connection.whole()
    await asyncio.sleep(connection.chance.random() * 0.01)
    if asyncio.get_running_loop().time() - connection.wrote_at < UNASKED_SECONDS:
        await connection.send(HEAD + chunk(b"data: not yours\n\n"))


async def some_trailers(connection: Connection) -> None:
    await connection.send(HEAD + chunk(connection.body()) + b"0\r\nx-a: b\r\nx-c: d\r\n\r\n")
    connection.keeps = True


async def cut(connection: Connection) -> None:
    """Close anywhere: within the head, a chunk's head, an event, between two."""
    body = connection.framed()
    await connection.send(body[: connection.chance.randrange(len(body))])


async def cut_in_head(connection: Connection) -> None:
    await connection.send(HEAD[: connection.chance.randrange(len(HEAD))])


async def cut_between_events(connection: Connection) -> None:
    await connection.send(HEAD)
    for event in payload.events(connection.script.seed, max(1, connection.script.count // 2)):
        await connection.send(chunk(event))


async def ends_without_marker(connection: Connection) -> None:
    await connection.send(connection.framed() + b"0\r\n\r\n")
    connection.keeps = True


async def reset(connection: Connection) -> None:
    body = connection.framed()
    await connection.send(body[: connection.chance.randrange(len(body))])
    connection.reset()


async def reset_at_once(connection: Connection) -> None:
    connection.reset()


async def stalled(connection: Connection) -> None:
    body = connection.framed()
    await connection.send(body[: connection.chance.randrange(len(body))])
    await connection.gone()


async def malformed_status_line(connection: Connection) -> None:
    await connection.send(
        connection.chance.choice((b"HTP/1.1 200 OK\r\n\r\n", b"HTTP/9.9 2x0\r\n\r\n", b"\0\1\2\r\n\r\n"))
    )


async def malformed_header(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type text/event-stream\r\n\r\n")


async def malformed_chunk(connection: Connection) -> None:
    await connection.send(connection.framed() + b"xyz\r\nabc\r\n")


async def endless_head(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\n")
    await connection.endless(connection.chance.choice((b"a:\r\n" * 500, b"x" * 4096)))


async def endless_body(connection: Connection) -> None:
    """Events without an end marker, as fast as they are taken, for as long as the stream may live."""
    await connection.send(HEAD)
    await connection.endless(chunk(next(payload.events(connection.script.seed, 1)) * 20))


async def endless_event(connection: Connection) -> None:
    await connection.send(HEAD + chunk(b"data: "))
    await connection.endless(chunk(b"x" * 8000))


async def endless_comments(connection: Connection) -> None:
    await connection.send(HEAD)
    for _ in range(int(LONG_SECONDS / 0.05)):
        await connection.send(chunk(b": still here\n\n"))
        await asyncio.sleep(0.05)


async def endless_trailers(connection: Connection) -> None:
    await connection.send(connection.framed() + b"0\r\n")
    await connection.endless(b"x-trailer: " + b"y" * 1000 + b"\r\n")


async def endless_chunk_head(connection: Connection) -> None:
    await connection.send(HEAD + b"5;")
    await connection.endless(b"x" * 4096)


async def endless_informational(connection: Connection) -> None:
    await connection.endless(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 50)


async def body_shorter_than_length(connection: Connection) -> None:
    body = connection.body()
    await connection.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % (len(body) + 10)
        + body[: len(body) // 2]
    )


async def body_longer_than_length(connection: Connection) -> None:
    body = connection.body()
    await connection.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % (len(body) // 2) + body
    )


async def odd_status(connection: Connection) -> None:
    status = connection.chance.choice(
        (0, 3, 99, 103, 204, 205, 226, 299, 300, 304, 307, 400, 404, 418, 451, 499, 520, 599, 600, 999)
    )
    await connection.send(
        b"HTTP/1.1 %03d Odd\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\n" % status
        + (b"" if status in (204, 304) else b"{}")
    )


async def refusal(connection: Connection) -> None:
    body = b'{"error":{"message":"no","type":"t","param":null,"code":"c"}}'
    status = connection.chance.choice((400, 401, 403, 404, 422, 429, 500, 503))
    await connection.send(
        b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\nretry-after-ms: 1\r\ncontent-length: %d\r\n\r\n"
        % (status, len(body))
        + body
    )
    connection.keeps = True


async def endless_refusal(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
    await connection.endless(chunk(b"[" * 8000))


async def large_answer(connection: Connection) -> None:
    """31 MiB, as JSON, whatever was asked for."""
    size = 31 * 1024 * 1024
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size)
    piece = b"[" * 64 * 1024
    for _ in range(size // len(piece)):
        await connection.send(piece)
    connection.keeps = True


async def compressed(connection: Connection) -> None:
    body = gzip.compress(connection.body())
    await connection.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
        % len(body)
        + body
    )


async def another_type(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nhello")


async def reads_nothing(connection: Connection) -> None:
    """Answers before it has read the request; its body may be megabytes."""
    await connection.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


HARMLESS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        none, late, slow, crlf, byte_order_mark, until_close, tiny_chunks, goes_on_after_the_end, early_hints, unasked_answer,
        some_trailers,
    )
}  # fmt: skip
FAULTS: dict[str, Fault] = HARMLESS | {
    fault.__name__: fault
    for fault in (
        silent, cut, cut_in_head, cut_between_events, ends_without_marker, reset, reset_at_once, stalled, malformed_status_line,
        malformed_header, malformed_chunk, endless_head, endless_body, endless_event, endless_comments, endless_trailers,
        endless_chunk_head, endless_informational, body_shorter_than_length, body_longer_than_length, odd_status, refusal,
        endless_refusal, large_answer, compressed, another_type, reads_nothing,
    )
}  # fmt: skip
