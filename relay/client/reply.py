"""The response of one stream, from its head to its end, with heartbeats between.

The law of this file: the head and the end go through ASGI's `send`; everything between is written to the connection without an
await, in one piece, and the caller stops writing while the connection is full. So a chunk is written whole or not at all, and
a heartbeat, which is a whole SSE comment between two events, is never inside of an event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from diagnostics import StreamRecord

from ..errors import ApiError
from ..protocol.sse import comment, encode
from .client import Client

__all__ = ["HEARTBEAT", "Headers", "Message", "Receive", "Reply", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

HEARTBEAT: Final = comment("hb")

# x-accel-buffering tells nginx to buffer no events.
HEADERS: Final[Headers] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

# The longest wait, at the end of a stream, for a client that may not read.
FAREWELL_SECONDS: Final = 0.5


class Reply:
    """One response that streams.

    record        counts the bytes that the reply itself adds (`opening`, the end); callers count their own chunks
    opening       SSE lines that begin the stream
    heartbeat     an SSE comment, which is sent while nothing else is
    early         whether a heartbeat may start the response; else the upstream's first bytes do
    error_event   the `event` field of the event that carries an error; None for none
    started       the response's head was sent
    complete      the end of the response was sent
    """

    heartbeat: bytes = HEARTBEAT

    def __init__(
        self,
        send: Send,
        client: Client,
        record: StreamRecord,
        *,
        opening: bytes = b"",
        early: bool = False,
        error_event: str | None = None,
    ) -> None:
        self._send = send
        self._client = client
        self._record = record
        self._opening = opening
        self._early = early
        self._error_event = error_event
        self._starting: asyncio.Task[None] | None = None
        self.started = False
        self.complete = False
        self.write = client.writer(record.hold)  # one chunk, at once; the hot path

    async def start(self, more: Mapping[str, str]) -> None:
        """Send the head, unless a heartbeat has done so; `more` are headers from the upstream's response."""
        await self._settled()
        if not self.started:
            await self._start(200, HEADERS, more)

    async def chunk(self, body: bytes) -> None:
        """Write a chunk, then wait until the connection has room for more."""
        self.write(body)
        await self.room()

    async def room(self) -> None:
        """Wait until the connection has room, or the client is gone."""
        if self._client.full:
            await self._client.room()

    async def finish(self, body: bytes = b"") -> None:
        """End the response; `body` is its last bytes: events, or the rest of the last event."""
        await self._end(body)
        if body:
            self._record.sent(len(body), body.count(b"\n\n"))

    async def fail(self, error: ApiError, *, at_boundary: bool) -> None:
        """Send an error and end the response: with the error's status before the head was sent, as a last event after it.

        at_boundary   whether the bytes so far end with a whole event
        """
        body = error.body()
        await self._settled()
        if self.started:
            event = encode(body, event=self._error_event)
            await self.finish(event if at_boundary else b"\n\n" + event)
            return
        head = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
        await self._start(error.status, head, error.headers)
        await self._end(body)

    async def fail_or_abort(self, error: ApiError, *, at_boundary: bool) -> None:
        """As `fail`, for a client that may not read: after FAREWELL_SECONDS the connection is aborted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.fail(error, at_boundary=at_boundary)
        if not self.complete:
            self.abort()

    def beat(self) -> int:
        """Send a heartbeat. Returns its bytes, 0 where none can be sent now. To be called between two events only."""
        if self.complete or self._starting is not None or self._client.full:
            return 0
        if self.started:
            self.write(self.heartbeat)
        elif self._early:
            self._starting = asyncio.create_task(self._start_with_heartbeat(), name="relay.stream.heartbeat")
        else:
            return 0
        return len(self.heartbeat)

    def unsent(self) -> int | None:
        """As Client.unsent."""
        return self._client.unsent()

    def abort(self) -> None:
        """Drop the client, with all bytes that were not sent."""
        self._client.abort()

    async def close(self) -> None:
        """End the task of a heartbeat that is starting the response."""
        if self._starting is not None:
            self._starting.cancel()
            await self._settled()

    async def _start_with_heartbeat(self) -> None:
        try:
            await self._start(200, HEADERS, {})
            self.write(self.heartbeat)
        finally:
            self._starting = None

    async def _settled(self) -> None:
        if self._starting is not None:
            await asyncio.wait([self._starting])

    async def _end(self, body: bytes) -> None:
        await self._settled()
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        self.complete = True

    async def _start(self, status: int, headers: Headers, more: Mapping[str, str]) -> None:
        extra = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
        self.started = True
        if self._opening and status == 200:
            self.write(self._opening)
            self._record.sent(len(self._opening))
