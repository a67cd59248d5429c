"""Streams that go step by step: an event is sent when the one before it has arrived, so that every run does the same work."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

# Under valgrind, on a machine that has other work, a server takes a minute to load.
PATIENCE_SECONDS = 200.0
READ_BYTES = 64 * 1024
BODY = b'{"model":"bench","stream":true,"messages":[{"role":"user","content":"go"}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (len(BODY), BODY)
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench",'
    b'"service_tier":"default","system_fingerprint":"fp_bench","choices":[{"index":0,"delta":{"content":"%07d"},'
    b'"logprobs":null,"finish_reason":null}]}\n\n'
)
LAST = b"data: [DONE]\n\n"


@dataclass
class Stream:
    """Both ends of one relayed stream."""

    upstream: asyncio.StreamWriter
    client: asyncio.StreamReader
    client_writer: asyncio.StreamWriter
    sent: int = 0

    async def step(self, events: int) -> None:
        """Send so many events in one write, and wait until the client has the last of them."""
        data = b"".join(EVENT % number for number in range(self.sent, self.sent + events))
        self.sent += events
        self.upstream.write(b"%x\r\n%s\r\n" % (len(data), data))
        last = (EVENT % (self.sent - 1))[:-1]  # a relay may put an id between it and its blank line
        seen = b""
        while last not in seen:
            seen = seen[-len(last) :] + await self._read()

    async def finish(self) -> None:
        """End the stream, and let the client go."""
        await self.end()
        self.client_writer.close()

    async def end(self) -> None:
        """End the stream as its upstream does, and wait until the client has its end."""
        self.upstream.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LAST), LAST))
        seen = b""
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen += await self._read()

    async def closed(self) -> None:
        """Close the client's connection."""
        self.client_writer.close()
        await self.client_writer.wait_closed()

    async def _read(self) -> bytes:
        more = await asyncio.wait_for(self.client.read(READ_BYTES), PATIENCE_SECONDS)
        if not more:
            raise SystemExit("the stream broke off")
        return more


class Upstream:
    """Takes requests, answers with a head, and leaves what follows to `Stream.step`; swallows telemetry."""

    def __init__(self) -> None:
        self._taken: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Upstream]:
        connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(
            lambda reader, writer: connections.add(asyncio.create_task(self._serve(reader, writer))), "127.0.0.1", 0
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def open(self, port: int) -> Stream:
        """A stream through the relay on `port`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        upstream = await asyncio.wait_for(self._taken.get(), PATIENCE_SECONDS)
        return Stream(upstream, reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(size[1]) if size else 0)
                if b" /otlp/" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                else:
                    writer.write(HEAD)
                    self._taken.put_nowait(writer)
