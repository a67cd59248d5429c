"""What clients do: one coroutine for each kind of client, in a table.

Each returns what it saw in one word, and raises Wrong where that may not be: bytes that the upstream did not send, an answer
that is not whole although nothing was wrong, or a relay that does not let go of a client which deserves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

from ..faults import HARMLESS
from .letting_go import PATIENCE_SECONDS, let_go
from .mix import Mix, Response, Wrong, expected, judge, read_response

__all__ = ["CLIENTS"]


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
