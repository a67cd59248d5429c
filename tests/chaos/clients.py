"""What clients do, and what they may see: one coroutine for each kind of client, in a table.

Each returns what it saw in one word, and raises Wrong where that may not be: bytes that the upstream did not send, an answer
that is not whole although nothing was wrong, or a relay that does not let go of a client which deserves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from . import payload
from .faults import HARMLESS, Script

__all__ = ["CLIENTS", "Mix", "Wrong"]

# What the relay may take to give up a client, on a busy machine; its own limits are a few seconds (relay.py).
PATIENCE_SECONDS = 45.0
TIME_WAIT = "06"
ERROR = b'data: {"error":'
ENDLESS = ("endless_body", "endless_event", "endless_comments")


class Wrong(Exception):  # it reads as what it says
    """A client saw what it may not see."""


@dataclass
class Mix:
    """What one client is given.

    ending   the relay is told to end meanwhile
    late     whether this process has been stopped for longer than a client may be
    """

    address: tuple[str, int]
    script: Script
    chance: random.Random
    ending: bool = False
    late: Callable[[], bool] = lambda: False

    @property
    def excused(self) -> bool:
        """Whether its answer may be cut, or not come: the relay ends, or clients had no processor for longer than it waits."""
        return self.ending or self.late()

    @property
    def model(self) -> str:
        return f"{self.script.fault}:{self.script.seed}:{self.script.count}"

    def post(self, padding: int = 0, *, path: str = "/v1/chat/completions") -> bytes:
        body = json.dumps(
            {"model": self.model, "stream": self.script.streams, "messages": [], "padding": "x" * padding}
        ).encode()
        return b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)) + body

    @contextlib.asynccontextmanager
    async def connected(
        self, receive_buffer: int = 0
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, self.address)
        reader, writer = await asyncio.open_connection(sock=made, limit=65536)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@dataclass
class Response:
    """`whole`: it came to its end as its framing says."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    whole: bool


async def read_response(reader: asyncio.StreamReader, pause: float = 0.0, most: int = 1 << 40) -> Response | None:
    """A response; None where the connection ended before its head did. `pause` after each piece; no more than `most` bytes."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return None
    first, *lines = head[:-4].split(b"\r\n")
    status = int(first.split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    body = bytearray()
    whole = False
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        async for piece in _pieces(reader, headers, status):
            body += piece
            if len(body) >= most:
                return Response(status, headers, bytes(body), False)
            if pause:
                await asyncio.sleep(pause)
        whole = True
    return Response(status, headers, bytes(body), whole)


async def _pieces(reader: asyncio.StreamReader, headers: dict[bytes, bytes], status: int) -> AsyncIterator[bytes]:
    if headers.get(b"transfer-encoding") == b"chunked":
        while True:
            size = int(await reader.readuntil(b"\r\n"), 16)
            if not size:
                await reader.readexactly(2)
                return
            for at in range(0, size, 4096):
                yield await reader.readexactly(min(4096, size - at))
            await reader.readexactly(2)
    left = 0 if status in (204, 304) else int(headers.get(b"content-length", b"0"))
    while left:
        piece = await reader.readexactly(min(4096, left))
        left -= len(piece)
        yield piece


def expected(script: Script) -> bytes:
    """What the client is to get where nothing goes wrong."""
    if not script.streams:
        return payload.answer(script.seed, script.count * 1000)
    body = payload.stream(script.seed, script.count, b"\r\n" if script.fault == "crlf" else b"\n")
    return b"\xef\xbb\xbf" + body if script.fault == "byte_order_mark" else body


def judge(mix: Mix, response: Response | None, *, stayed: bool = True) -> str:
    """What a client saw. `stayed`: it read as fast as it could, to the end."""
    script = mix.script
    harmless = script.fault in HARMLESS
    if response is None:
        if stayed and not mix.excused:
            raise Wrong("the connection ended without an answer")
        return "nothing"
    if response.status != 200:
        if stayed and response.whole and (response.status >= 400 or script.streams):  # another success is handed on
            _check_error(response)
        if harmless and stayed and not mix.excused:
            raise Wrong(f"status {response.status} although nothing was wrong: {response.body[:200]!r}")
        return f"status {response.status}"
    wanted = expected(script)
    if (response.whole and response.body == wanted) or _goes_on(script, response.body, wanted):
        return "whole"
    if harmless and stayed and not mix.excused:
        at = next((i for i, (a, b) in enumerate(zip(response.body, wanted, strict=False)) if a != b), -1)
        raise Wrong(
            f"not what the upstream said: {len(response.body)} bytes of {len(wanted)}, whole {response.whole}, "
            f"differs at {at}, ends with {response.body[-120:]!r}"
        )
    if script.fault in ENDLESS:
        return "endless"
    _check_prefix(script, response, wanted, stayed=stayed and not mix.excused)
    return "told" if ERROR in response.body else "cut"


def _goes_on(script: Script, body: bytes, wanted: bytes) -> bool:
    """What comes in one piece with the end marker is handed on with it."""
    return script.fault == "goes_on_after_the_end" and body.startswith(wanted)


def _check_prefix(script: Script, response: Response, wanted: bytes, *, stayed: bool) -> None:
    """What came is what the upstream said, up to where it broke off, and then an error."""
    said, error, _ = response.body.partition(ERROR)
    said = said.removesuffix(b": hb\n\n") if said.endswith(b": hb\n\n") else said
    said = said.replace(b": hb\n\n", b"")
    if not wanted.startswith(said) and not (said.endswith(b"\n\n") and wanted.startswith(said[:-2])):
        at = next((i for i, (a, b) in enumerate(zip(said, wanted, strict=False)) if a != b), -1)
        raise Wrong(f"bytes that the upstream did not send, from {at}: {said[at : at + 120]!r}")
    if stayed and script.streams and not error and response.whole:
        raise Wrong(f"an end without an error and without the end marker: {response.body[-120:]!r}")


def _check_error(response: Response) -> None:
    try:
        json.loads(response.body)["error"]
    except (ValueError, KeyError, TypeError):
        raise Wrong(f"status {response.status} with {response.body[:200]!r}, which is no error of the API") from None


def _kernel_has(made: socket.socket) -> bool:
    """Whether the relay's end of it is still there; the kernel keeps it for what was not taken before it was closed."""
    try:
        ends = made.getpeername()[1], made.getsockname()[1]
    except OSError:  # it was reset, and closed here
        return False
    for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        if tuple(int(fields[column].rpartition(":")[2], 16) for column in (1, 2)) == ends:
            return fields[3] != TIME_WAIT
    return False


async def let_go(writer: asyncio.StreamWriter) -> None:
    """Wait until the relay ends the connection, without reading it. A kernel that gives up does not say so."""
    made: socket.socket = writer.get_extra_info("socket")
    if writer.is_closing():
        return
    poll = select.poll()
    poll.register(made.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_SECONDS
    while not writer.is_closing() and not poll.poll(0) and _kernel_has(made):
        if loop.time() > until:
            raise Wrong(f"the relay has kept the connection for {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(0.2)


# The clients


async def fast(mix: Mix) -> str:
    async with mix.connected() as (reader, writer):
        writer.write(mix.post())
        return judge(mix, await read_response(reader))


async def slow(mix: Mix) -> str:
    """Takes a piece now and then, less often than it comes; still, it is a client that reads."""
    async with mix.connected(4096) as (reader, writer):
        writer.write(mix.post())
        body_bytes = len(expected(mix.script))
        return judge(mix, await read_response(reader, pause=min(0.01, 3.0 / (body_bytes / 4096 + 1))))


async def with_a_large_body(mix: Mix) -> str:
    async with mix.connected() as (reader, writer):
        request = mix.post(mix.chance.randrange(100_000, 2_000_000))
        for at in range(0, len(request), 50_000):
            writer.write(request[at : at + 50_000])
            await asyncio.sleep(0)
        response = await read_response(reader)
        if response is None or response.status in (408, 503):
            # There was no room for it, or the machine was too busy to bring it in time; a reset may overtake that answer.
            return "refused"
        return judge(mix, response, stayed=mix.script.fault != "reads_nothing")


async def event_source(mix: Mix) -> str:
    async with mix.connected() as (reader, writer):
        writer.write(f"GET /stream?prompt=x&model={mix.model} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        response = await read_response(reader)
        if response is not None and response.status == 200:
            body = response.body.replace(b": hb\n\n", b"").removeprefix(b"retry: 3000\n")
            response = Response(200, response.headers, body, response.whole)
            # A byte order mark that does not come first is part of a line.
            return judge(mix, response, stayed=mix.script.fault in HARMLESS)
        return judge(mix, response)


async def pipelining(mix: Mix) -> str:
    """Several requests at once, whose answers come in their order."""
    count = mix.chance.randrange(2, 5)
    async with mix.connected() as (reader, writer):
        writer.write(mix.post() * count)
        seen = set()
        for _ in range(count):
            response = await read_response(reader)
            if response is None and seen and not seen <= {"whole"}:
                break  # an error may close the connection
            seen.add(judge(mix, response))
        return "+".join(sorted(seen))


async def never_reading(mix: Mix) -> str:
    async with mix.connected(4096) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
        writer.write(mix.post())
        await let_go(writer)
        return "let go"


async def leaving(mix: Mix) -> str:
    async with mix.connected() as (reader, writer):
        writer.write(mix.post())
        response = await read_response(reader, most=mix.chance.randrange(1, 50_000))
        return f"left, {judge(mix, response, stayed=False)}"


async def resetting(mix: Mix) -> str:
    async with mix.connected() as (_, writer):
        made: socket.socket = writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request = mix.post()
        writer.write(request[: mix.chance.randrange(len(request) * 2)])
        await asyncio.sleep(mix.chance.random() * 0.3)
        return "left"


async def half_closing(mix: Mix) -> str:
    """Says that nothing more will come, and reads. uvicorn takes that for a client that has left, as many servers do."""
    async with mix.connected() as (reader, writer):
        writer.write(mix.post())
        writer.write_eof()
        return judge(mix, await read_response(reader), stayed=False)


async def slowloris_head(mix: Mix) -> str:
    async with mix.connected() as (reader, writer):
        with contextlib.suppress(OSError):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n")
            for number in range(int(PATIENCE_SECONDS / 0.2)):
                writer.write(b"x-%d: y\r\n" % number)
                await writer.drain()
                await asyncio.sleep(0.2)
                if reader.at_eof() or writer.is_closing():
                    return "let go"
            raise Wrong("a head that never ends was waited for")
        return "let go"


async def slowloris_body(mix: Mix) -> str:
    async with mix.connected() as (reader, writer):
        with contextlib.suppress(OSError):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
            for _ in range(int(PATIENCE_SECONDS / 0.2)):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.2)
                if writer.is_closing() or len(reader._buffer) > 0:  # type: ignore[attr-defined]  # something was said
                    return "let go"
            raise Wrong("a body that never ends was waited for")
        return "let go"


async def body_after_a_refusal(mix: Mix) -> str:
    """Is refused at once, and goes on sending the body of its request."""
    async with mix.connected() as (_, writer):
        with contextlib.suppress(OSError):
            writer.write(b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\n")
            for _ in range(int(PATIENCE_SECONDS / 0.1)):
                writer.write(b"x" * 100)
                await writer.drain()
                await asyncio.sleep(0.1)
                if writer.is_closing():
                    return "let go"
            raise Wrong("a body that nobody reads was waited for")
        return "let go"


async def endless_head(mix: Mix) -> str:
    async with mix.connected() as (_, writer):
        with contextlib.suppress(OSError):
            writer.write(b"GET / HTTP/1.1\r\n")
            for _ in range(4000):
                writer.write(mix.chance.choice((b"a:\r\n" * 256, b"x" * 1024)))
                await writer.drain()
                if writer.is_closing():
                    return "let go"
            await let_go(writer)
        return "let go"


async def endless_body(mix: Mix) -> str:
    async with mix.connected() as (reader, writer):
        with contextlib.suppress(OSError):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(400):
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
                if writer.is_closing():
                    return "let go"
        response = await read_response(reader)
        if response is not None and response.status not in (408, 413, 503):
            raise Wrong(f"26 MB of a body were answered with {response.status}")
        return "let go"


async def endless_trailers(mix: Mix) -> str:
    async with mix.connected() as (_, writer):
        with contextlib.suppress(OSError):
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
            )
            for _ in range(int(PATIENCE_SECONDS / 0.05)):
                writer.write(b"a: b\r\n" * 100)
                await writer.drain()
                await asyncio.sleep(0.05)
                if writer.is_closing():
                    return "let go"
            raise Wrong("trailers without end were taken")
        return "let go"


async def garbage(mix: Mix) -> str:
    async with mix.connected() as (_, writer):
        with contextlib.suppress(OSError):
            writer.write(
                mix.chance.choice(
                    (
                        mix.chance.randbytes(500),
                        b"GET /\xff HTTP/1.1\r\nhost: [\r\n\r\n",
                        b"GET http://[ HTTP/1.1\r\nhost: localhost\r\n\r\n",
                        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
                        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                        b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nxxx",
                        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 90000\r\n\r\n"
                        + b"[" * 90000,
                        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\n"
                        + b"7" * 5000,
                    )
                )
            )
            await writer.drain()
        await let_go(writer)
        return "let go"


async def silent(mix: Mix) -> str:
    async with mix.connected() as (_, writer):
        await let_go(writer)
        return "let go"


async def many_at_once(mix: Mix) -> str:
    """Thousands of requests in one piece."""
    async with mix.connected() as (_, writer):
        with contextlib.suppress(OSError):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 5000)
            await writer.drain()
        await let_go(writer)
        return "let go"


async def topic(mix: Mix) -> str:
    """Subscribes, and publishes over another connection: what was taken comes, in its order."""
    name = f"t{mix.script.seed}"
    async with mix.connected() as (reader, writer), mix.connected() as (answers, requests):
        writer.write(f"GET /v1/topics/{name} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        subscribing = asyncio.ensure_future(read_response(reader, most=1 << 20))
        try:
            await asyncio.sleep(0.3)
            for number in range(5):
                body = b'{"n":%d}' % number
                requests.write(
                    b"POST /v1/topics/%b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n" % (name.encode(), len(body)) + body
                )
                answer = await read_response(answers)
                if answer is None or answer.status not in (201, 503):
                    if mix.excused:
                        return "nothing"
                    raise Wrong(f"publishing was answered with {answer and answer.status}")
                if answer.headers.get(b"connection") == b"close":
                    return "refused"
            await asyncio.sleep(0.2)
        finally:
            writer.transport.abort()
            with contextlib.suppress(asyncio.CancelledError):
                response = await subscribing
        if response is None or response.status != 200:
            return "refused"
        numbers = [int(line[11:-1]) for line in response.body.split(b"\n") if line.startswith(b'data: {"n":')]
        if numbers != sorted(set(numbers)):
            raise Wrong(f"events out of order or twice: {numbers}")
        return f"{len(numbers)} events"


CLIENTS: dict[str, Callable[[Mix], Awaitable[str]]] = {
    client.__name__: client
    for client in (
        fast, slow, with_a_large_body, event_source, pipelining, never_reading, leaving, resetting, half_closing,
        slowloris_head, slowloris_body, body_after_a_refusal, endless_head, endless_body, endless_trailers, garbage, silent,
        many_at_once, topic,
    )
}  # fmt: skip
