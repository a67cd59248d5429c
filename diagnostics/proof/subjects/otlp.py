"""An OTLP (HTTP) receiver that counts and discards a relay's exports while the relay is studied.

Without a receiver an exporter keeps, retries and logs what it cannot send, and that would be measured. The content of exports
is ignored; their number is checked, since a relay that exports nothing proves nothing about its traces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httptools

__all__ = ["Receiver", "receiver"]

_READ_BYTES = 64 * 1024
# An empty protobuf message means full success (OTLP specification, OTLP/HTTP response).
_TAKEN = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class Receiver:
    """Counts of exports and of their bytes. `url`: for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self) -> None:
        self.url = ""
        self.exports = 0
        self.bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        parser = httptools.HttpRequestParser(connection)
        try:
            while data := await reader.read(_READ_BYTES):
                parser.feed_data(data)
                await writer.drain()
        except (ConnectionError, httptools.HttpParserError):
            pass  # a peer that sends no HTTP has exported nothing
        finally:
            writer.close()


class _Connection:
    """Callbacks of the HTTP parser of one connection."""

    def __init__(self, receiver: Receiver, writer: asyncio.StreamWriter) -> None:
        self._receiver = receiver
        self._writer = writer

    def on_body(self, body: bytes) -> None:
        self._receiver.bytes += len(body)

    def on_message_complete(self) -> None:
        self._receiver.exports += 1
        self._writer.write(_TAKEN)


@asynccontextmanager
async def receiver() -> AsyncGenerator[Receiver, None]:
    """Listen on a free port of 127.0.0.1 until the block ends."""
    one = Receiver()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    one.url = f"http://{host}:{port}"
    try:
        yield one
    finally:
        server.close()
        await server.wait_closed()
