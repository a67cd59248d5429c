"""Servers whose answers are known to the byte: in the event loop of a test, or in a thread beside it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def events(count: int, size: int = 200) -> bytes:
    return b"".join(b'data: {"n":%d,"text":"%s"}\n\n' % (number, b"x" * size) for number in range(count))


Script = Callable[[asyncio.StreamWriter, int], Any]
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server in this event loop, all of whose connections are closed at the end, whether handled by then or not.

    `asyncio.start_server` alone leaves a connection open whose handler has not begun: the handler is cancelled with the test,
    before its first line and so before its `finally`. Some other test is then warned that the socket was not closed.
    """
    accepted: set[Any] = set()  # transports: uvloop's are no asyncio.Transport

    class Accepted(asyncio.StreamReaderProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport_here = transport
            accepted.add(transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            accepted.discard(self._transport_here)  # asyncio's `abort` raises for one that has sent its rest and closed
            super().connection_lost(exc)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Accepted(asyncio.StreamReader(), handle), "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        # Whoever has connected is accepted, and known to its protocol, within four turns. Not once the server is closed:
        # CPython 3.11 loses the socket of a connection that is accepted just before.
        await _turns(5)
        server.close()
        for transport in list(accepted):
            transport.abort()
        await _turns(2)  # it is closed in the next one


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@contextmanager
def serving(script: Script) -> Iterator[tuple[str, list[bytes], list[str]]]:
    """A server in a thread: its URL, the requests it got, and how its connections ended."""
    requests: list[bytes] = []
    endings: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await script(writer, len(requests) - 1)
            await writer.drain()
            endings.append("ended")
        except ConnectionResetError:
            endings.append("reset")
        except (BrokenPipeError, asyncio.IncompleteReadError):
            endings.append("gone")
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    listens: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        over = asyncio.Event()
        async with listening(serve) as port:
            listens.set_result((port, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    port, loop, over = listens.result(60)
    try:
        yield f"http://127.0.0.1:{port}", requests, endings
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
