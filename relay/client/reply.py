"""The client's side of one stream: the response, from its head to its end, with heartbeats between.

The law of this file: the head and the end go through ASGI's `send`, everything between is written to the connection at once, in
one piece, and whoever writes stops while the connection is full. So a chunk is on its way or it is not, never half of it, and a
heartbeat, a whole comment between two events, is never inside of one.
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

__all__ = ["HEARTBEAT", "Message", "Receive", "Reply", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

HEARTBEAT: Final = comment("hb")

# No proxy may hold events back: x-accel-buffering says so to nginx.
HEADERS: Final[Headers] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

# A client that does not read is not waited for when its stream ends.
FAREWELL_SECONDS: Final = 0.5


class Reply:
    """One response that streams.

    record    is told of what the reply itself adds to the stream; who writes or sends a chunk counts it
    opening   what the stream begins with, lines without the blank one after them
    early     whether a heartbeat may start the response; where not, the upstream's first bytes do
    error_event   the type of the event that tells of an error; None for one without
    started   the client has the response's head
    complete  the client has the whole response, or nothing more will be sent
    """

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
        """Begin the stream, unless a heartbeat has done so; `more` are headers of the upstream's."""
        await self._settled()
        if not self.started:
            await self._start(200, HEADERS, more)

    async def chunk(self, body: bytes) -> None:
        """Send some of the stream; waits until the client's side has room for more."""
        self.write(body)
        await self.room()

    async def room(self) -> None:
        """Wait until the client's side has room, or the client is gone."""
        if self._client.full:
            await self._client.room()

    async def finish(self, body: bytes = b"") -> None:
        """End the stream, with these events or with the rest of the last one."""
        await self._end(body)
        if body:
            self._record.sent(len(body), body.count(b"\n\n"))

    async def fail(self, error: ApiError, *, at_boundary: bool) -> None:
        """Tell the client of an error: with a status while that is possible, with a last event afterwards."""
        body = error.body()
        await self._settled()
        if self.started:
            event = encode(body, event=self._error_event)
            await self.finish(event if at_boundary else b"\n\n" + event)
            return
        head = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
        await self._start(error.status, head, error.headers)
        await self._end(body)

    async def part(self, error: ApiError, *, at_boundary: bool) -> None:
        """As `fail`, for a client that may not read: it has FAREWELL_SECONDS, then the connection is given up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.fail(error, at_boundary=at_boundary)
        if not self.complete:
            self.abort()

    def beat(self) -> int:
        """Send a heartbeat; the number of its bytes, 0 where there can be none now. Call it between two events only."""
        if self.complete or self._starting is not None or self._client.full:
            return 0
        if self.started:
            self.write(HEARTBEAT)
        elif self._early:
            self._starting = asyncio.create_task(self._start_with_heartbeat(), name="relay.stream.heartbeat")
        else:
            return 0
        return len(HEARTBEAT)

    def unsent(self) -> int | None:
        """Bytes that the client has not taken while something waits for it to; None where nothing does."""
        return self._client.unsent()

    def abort(self) -> None:
        """Give the connection up, with whatever was not sent."""
        self._client.abort()

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._starting is not None:
            self._starting.cancel()
            await self._settled()

    async def _start_with_heartbeat(self) -> None:
        try:
            await self._start(200, HEADERS, {})
            self.write(HEARTBEAT)
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
