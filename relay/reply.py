"""The client's side of one stream: the response, from its head to its end, with heartbeats between.

The law of this file: one send at a time. The pump sends chunks; the sweep asks for heartbeats (`beat`), each in a task of its
own, so that a client that does not read never holds up the sweep; whatever the pump sends next waits for it. A heartbeat is a
whole comment between two events, so that it is never inside of one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from .connection import unsent_bytes
from .errors import ApiError
from .sse import comment, encode

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

    opening   what the stream begins with, lines without the blank one after them
    early     whether a heartbeat may start the response; where not, the upstream's first bytes do
    error_event   the type of the event that tells of an error; None for one without
    started   the client has the response's head
    complete  the client has the whole response, or nothing more will be sent
    sending   a chunk is being sent; it stays true where that was cut short
    """

    def __init__(
        self,
        send: Send,
        transport: asyncio.Transport | None,
        *,
        opening: bytes = b"",
        early: bool = False,
        error_event: str | None = None,
    ) -> None:
        self._send = send
        self._transport = transport
        self._opening = opening
        self._early = early
        self._error_event = error_event
        self._beat: asyncio.Task[None] | None = None
        self.started = False
        self.complete = False
        self.sending = False

    async def start(self, more: Mapping[str, str]) -> None:
        """Begin the stream, unless a heartbeat has done so; `more` are headers of the upstream's."""
        await self._settled()
        if not self.started:
            await self._start(200, HEADERS, more)

    async def chunk(self, body: bytes) -> None:
        """Send some of the stream; waits until the client's side takes it. The hot path."""
        if self._beat is not None:
            await self._settled()
        self.sending = True
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self.sending = False

    async def finish(self, body: bytes = b"") -> None:
        await self._settled()
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        self.complete = True

    async def fail(self, error: ApiError, *, at_boundary: bool) -> None:
        """Tell the client of an error: with a status while that is possible, with a last event afterwards."""
        body = error.body()
        await self._settled()
        if self.started:
            # A chunk that was cut short may have left or not: only the client knows whether it is between two events.
            between = at_boundary and not self.sending
            event = encode(body, event=self._error_event)
            await self.finish(event if between else b"\n\n" + event)
            return
        head = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
        await self._start(error.status, head, error.headers)
        await self.finish(body)

    async def part(self, error: ApiError, *, at_boundary: bool) -> None:
        """As `fail`, for a client that may not read: it has FAREWELL_SECONDS, then the connection is given up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.fail(error, at_boundary=at_boundary)
        if not self.complete:
            self.abort()

    def beat(self) -> None:
        """Send a heartbeat soon. Call it between two events only; does nothing where it cannot be one."""
        if self._beat is None and not self.sending and not self.complete and (self.started or self._early):
            self._beat = asyncio.create_task(self._send_heartbeat(), name="relay.stream.heartbeat")

    def unsent(self) -> int | None:
        """Bytes that the client has not taken while something waits for it to; None where nothing does."""
        transport = self._transport
        waits = self.sending or self._beat is not None
        if transport is None:
            return 0 if waits else None
        return unsent_bytes(transport) if waits or transport.get_write_buffer_size() else None

    def abort(self) -> None:
        """Give the connection up, with whatever was not sent."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._beat is not None:
            self._beat.cancel()
            await self._settled()

    async def _send_heartbeat(self) -> None:
        try:
            if not self.started:
                await self._start(200, HEADERS, {})
            await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        except OSError:
            pass  # a server that tells when its client is gone; the watcher is told, too
        finally:
            self._beat = None

    async def _settled(self) -> None:
        if self._beat is not None:
            await asyncio.wait([self._beat])

    async def _start(self, status: int, headers: Headers, more: Mapping[str, str]) -> None:
        extra = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
        self.started = True
        if self._opening and status == 200:
            await self._send({"type": "http.response.body", "body": self._opening, "more_body": True})
