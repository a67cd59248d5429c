"""One relayed stream's life: everything it opens, it closes, on every way out, and its end has one name.

The law of this file. The request's own task is the pump: it reads from the upstream, sends to the client, and reads again
only when the client's side took the bytes; nothing is queued and nothing is dropped, so that a slow client slows its
upstream. One more task watches for the client's leaving, at any moment: while the upstream is asked, while it is silent, while
the client does not read. It and the shutdown end the pump in the same way (`RelayedStream.end`), and the upstream is closed
in the same step, without waiting for anything.

The response starts with the upstream's first bytes. Until then a failure is an HTTP status, afterwards it is an SSE event
`data: {"error": {...}}`, and the body ends without `[DONE]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.responses import Response

from diagnostics import StreamLedger, StreamRecord

from .chat import ChatFacts
from .errors import ApiError, ShuttingDownError, UpstreamError, UpstreamProtocolError
from .sse import EventScanner, EventTooLargeError, encode
from .upstream import Upstream, UpstreamStream

__all__ = ["Call", "OpenStreams", "RelayedStream", "Span"]

log = logging.getLogger("relay.stream")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

# No proxy may hold events back: x-accel-buffering says so to nginx.
HEADERS: Final[Headers] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

# After [DONE] an upstream has only its end of body left to say. It is given this long, so that its connection can be used
# again; the client has its answer by then.
LINGER_SECONDS: Final = 0.25
# A client that does not read is not waited for when the relay ends.
FAREWELL_SECONDS: Final = 0.5

# Whose end it was decides how loud it is logged: clients come and go, upstreams should not.
LOG_LEVELS: Final = {"upstream_error": logging.WARNING, "timeout": logging.WARNING}


class Span(Protocol):
    """What a stream tells the trace about its call to the upstream (see telemetry.py)."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, or None where nothing is traced."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What the upstream is sent, so that its own spans belong to this trace."""

    def first_chunk(self) -> None: ...

    def end(self, outcome: str, *, facts: ChatFacts | None = None, error: ApiError | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the upstream: what the trace and the relay need of it, and its JSON as it came."""

    model: str
    streams: bool
    content: bytes


class OpenStreams:
    """The streams that are open now, for the shutdown."""

    def __init__(self) -> None:
        self._streams: set[RelayedStream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: RelayedStream) -> None:
        self._streams.add(stream)

    def discard(self, stream: RelayedStream) -> None:
        self._streams.discard(stream)

    def end_all(self) -> None:
        """End every open stream with the outcome `shutdown`. Call it on the loop's thread."""
        for stream in tuple(self._streams):
            stream.end("shutdown")


class RelayedStream(Response):
    """The response that is the stream. An ASGI app of its own: it closes what it opens and leaves nothing to a framework."""

    media_type = "text/event-stream"

    def __init__(
        self,
        call: Call,
        *,
        route: str,
        upstream: Upstream,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        start_span: Callable[[Call], Span],
        max_event_bytes: int,
    ) -> None:
        super().__init__()
        self._call: Call | None = call
        self._route = route
        self._upstream = upstream
        self._ledger = ledger
        self._open_streams = open_streams
        self._start_span = start_span
        self._scanner = EventScanner(max_event_bytes=max_event_bytes)
        self._facts = ChatFacts()
        self._source: UpstreamStream | None = None
        self._task: asyncio.Task[Any] | None = None
        self._record: StreamRecord | None = None
        self._started = False  # the client has the response's head
        self._complete = False  # the client has the whole response, or nothing more will be sent
        self._ending: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, self._call = self._call, None
        assert call is not None, "a stream is served once"
        with self._ledger.stream(self._route) as record:
            span = self._start_span(call)
            record.trace_id = span.trace_id
            self._record, self._task = record, asyncio.current_task()
            self._open_streams.add(self)
            watcher = asyncio.create_task(self._watch(receive), name="relay.stream.watch")
            outcome, error = "upstream_error", None  # where not even the error has a name
            try:
                outcome, error = await self._live(call, record, span, send)
            except asyncio.CancelledError:
                outcome = "shutdown"  # not by `end`: the server takes the task down
                raise
            finally:
                self._open_streams.discard(self)
                self._task = None
                record.ends(outcome)
                self._close_upstream()
                span.end(outcome, facts=self._facts, error=error)
                _log(record, outcome, error)
                await _cancel(watcher)

    def end(self, outcome: str) -> None:
        """End the stream now, wherever it waits; `outcome` is its name. Does nothing to one that has ended."""
        if self._ending is None and not self._complete and self._task is not None and self._record is not None:
            self._ending = outcome
            self._record.ends(outcome)
            self._close_upstream()
            self._task.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # a server may say more than once that the request's body is over
        # A response that is complete looks the same from here; `send` returned before this task could run.
        if not self._complete and self._record is not None:
            self._record.disconnected()
            self.end("client_disconnected")

    async def _live(self, call: Call, record: StreamRecord, span: Span, send: Send) -> tuple[str, ApiError | None]:
        """Pump until the end and tell the client how it went: the outcome, and the error if there was one."""
        error: UpstreamError | None = None
        try:
            await self._pump(call, record, span, send)
        except asyncio.CancelledError:
            if self._ending is None:
                raise
        except UpstreamError as problem:
            error = problem
        except OSError:
            # What the upstream does has names of its own: this is `send`, of a server that tells when its client is gone.
            record.disconnected()
            return "client_disconnected", None
        if self._took_end():
            if self._ending == "shutdown":
                await self._farewell(send)
            return str(self._ending), None
        if error is None:
            return "completed", None
        record.ends(error.outcome)
        self._close_upstream()
        try:
            await self._fail(error, send, at_boundary=self._scanner.at_boundary)
        except asyncio.CancelledError:
            # The client left, or the relay ends, before it heard of the failure: the failure is still what ended the stream.
            if not self._took_end():
                raise
        return error.outcome, error

    def _took_end(self) -> bool:
        """Whether `end` was called; its cancellation of this task is then over."""
        if self._ending is None:
            return False
        if self._task is not None:
            self._task.uncancel()
        return True

    async def _pump(self, call: Call, record: StreamRecord, span: Span, send: Send) -> None:
        source = self._source = await self._upstream.stream(call.content, span.headers)
        del call  # its JSON may be megabytes, and a stream may be hours
        chunk = await source.read()
        span.first_chunk()
        if not chunk:
            raise UpstreamProtocolError("the upstream's stream ended before its first event")
        facts, scanner = self._facts, self._scanner
        while chunk:
            size = len(chunk)
            try:
                record.received(size, scanner.feed(chunk))
            except EventTooLargeError as error:
                raise UpstreamProtocolError(f"the upstream sent an event of more than {error.limit} bytes") from error
            facts.feed(chunk)
            if not self._started:
                await self._start(200, HEADERS, source.headers, send)
            record.hold(size)
            try:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                record.release(size)
            if facts.done and scanner.at_boundary:
                await self._finish(send)
                await _linger(source)
                return
            chunk = await source.read()
        facts.eof()
        if facts.done:
            # Some upstreams leave out the blank line after [DONE]; without it the client would not get the event.
            await self._finish(send, b"" if scanner.at_boundary else b"\n\n")
            return
        where = "between two events" if scanner.at_boundary else "in the middle of an event"
        raise UpstreamProtocolError(f"the upstream's stream ended {where}, without [DONE]")

    async def _start(self, status: int, headers: Headers, more: Mapping[str, str], send: Send) -> None:
        extra = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()]
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
        self._started = True

    async def _finish(self, send: Send, body: bytes = b"") -> None:
        await send({"type": "http.response.body", "body": body, "more_body": False})
        self._complete = True

    async def _fail(self, error: ApiError, send: Send, *, at_boundary: bool) -> None:
        """Tell the client: with a status while that is possible, with an event afterwards."""
        body = error.body()
        if self._started:
            await self._finish(send, encode(body) if at_boundary else b"\n\n" + encode(body))
            return
        head = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
        await self._start(error.status, head, error.headers, send)
        await self._finish(send, body)

    async def _farewell(self, send: Send) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                # The chunk that was being sent may not have left: only the client knows whether it is between two events.
                await self._fail(ShuttingDownError(), send, at_boundary=False)

    def _close_upstream(self) -> None:
        source, self._source = self._source, None
        if source is not None and self._record is not None:
            source.close()
            self._record.upstream_closed()


def _log(record: StreamRecord, outcome: str, error: ApiError | None) -> None:
    level = LOG_LEVELS.get(outcome, logging.DEBUG)
    if log.isEnabledFor(level):
        log.log(
            level,
            "stream ended: route=%s outcome=%s events_in=%d bytes_in=%d bytes_out=%d trace_id=%s%s",
            record.route,
            outcome,
            record.events_in,
            record.bytes_in,
            record.bytes_out,
            record.trace_id or "-",
            f" reason={error.message!r}" if error else "",
        )


async def _linger(source: UpstreamStream) -> None:
    """Let the upstream end its body, so that the connection can be used again; whatever else happens, it is closed."""
    with contextlib.suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(LINGER_SECONDS):
            await source.read()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # a watcher that failed has a bug: say so
