"""One relayed stream's life: everything it opens, it closes, on every way out, and its end has one name.

The law of this file. The request's own task is the pump: it reads from the upstream, sends to the client, and reads again
only when the client's side took the bytes; nothing is queued and nothing is dropped, so that a slow client slows its
upstream. One more task watches for the client's leaving, at any moment: while the upstream is asked, while it is silent, while
the client does not read. It, the sweep's time-outs and the shutdown end the pump in the same way (`RelayedStream.end`), and the
upstream is closed in the same step, without waiting for anything.

The response starts with the upstream's first bytes (or, where the caller says so, with the first heartbeat). Until then a
failure is an HTTP status, afterwards it is an SSE event `data: {"error": {...}}`, and the body ends without the
end marker (`[DONE]` of a chat; endpoints.py has them all).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.responses import Response

from diagnostics import StreamLedger, StreamRecord

from .connection import transport_of
from .degraded import DEGRADED, degraded_stream
from .endpoints import Endpoint
from .errors import (
    ApiError,
    IdleError,
    ShuttingDownError,
    TooLongError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from .facts import Facts
from .patience import Limits, Patience, Progress
from .read_ahead import ReadAhead, Source
from .reply import Receive, Reply, Scope, Send
from .sse import EventScanner, EventTooLargeError
from .sweep import OpenStreams
from .upstreams import Upstreams

__all__ = ["Call", "RelayedStream", "Span"]

# After its end marker an upstream has only its end of body left to say. It is given this long, so that its connection can
# be used again; the client has its answer by then.
LINGER_SECONDS: Final = 0.25
# How long the server takes to notice that a connection was given up.
ABORTED_SECONDS: Final = 1.0


class Span(Protocol):
    """What a stream tells the trace about its call to the upstream (see telemetry.py)."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, or None where nothing is traced."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What the upstream is sent, so that its own spans belong to this trace."""

    def first_chunk(self) -> None: ...

    def event(self, name: str, **about: str | float) -> None:
        """Something happened to the stream: one of the events in telemetry/names.py. Never called for each chunk."""

    def swept(self, record: StreamRecord, now: float) -> None:
        """The sweep has looked at the stream."""

    def end(
        self,
        outcome: str,
        *,
        record: StreamRecord | None = None,
        facts: Facts | None = None,
        error: ApiError | None = None,
    ) -> None:
        """It is over. A stream has a record, and gets its line in the log."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the upstream: what the trace and the relay need of it, and its JSON as it came.

    model   as asked for; "" where the upstream has it stored
    """

    endpoint: Endpoint
    model: str
    streams: bool
    content: bytes


class RelayedStream(Response):
    """The response that is the stream. An ASGI app of its own: it closes what it opens and leaves nothing to a framework."""

    media_type = "text/event-stream"

    def __init__(
        self,
        call: Call,
        *,
        route: str,
        upstream: Upstreams,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        place: AbstractContextManager[None],
        start_span: Callable[[Call], Span],
        limits: Limits,
        max_event_bytes: int,
        degraded_message: str = "",
        read_ahead: Callable[[Source], ReadAhead] | None = None,
        opening: bytes = b"",
        early: bool = False,
    ) -> None:
        super().__init__()
        self._call: Call | None = call
        self._route = route
        self._upstream = upstream
        self._ledger = ledger
        self._open_streams = open_streams
        self._place = place
        self._start_span = start_span
        self._scanner = EventScanner(max_event_bytes=max_event_bytes)
        self._endpoint = call.endpoint
        self._facts = call.endpoint.facts()
        self._limits = limits
        self._patience = Patience(limits, time.monotonic())
        self._opening, self._early = opening, early
        self._model, self._degraded_message = call.model, degraded_message
        self._make_read_ahead = read_ahead
        self._read_ahead: ReadAhead | None = None
        self._source: Source | None = None
        self._task: asyncio.Task[Any] | None = None
        self._record: StreamRecord | None = None
        self._reply: Reply | None = None
        self._span: Span | None = None
        self._data_chunks = 0  # chunks from the upstream with more in them than comments
        self._parsed = 0  # bytes of the record's that the parser holds
        self._ending: str | None = None
        self._ending_error: ApiError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, self._call = self._call, None
        assert call is not None, "a stream is served once"
        with self._place, self._ledger.stream(self._route) as record:
            span = self._start_span(call)
            record.trace_id = span.trace_id
            reply = Reply(send, transport_of(scope), opening=self._opening, early=self._early)
            self._record, self._reply, self._span, self._task = record, reply, span, asyncio.current_task()
            self._open_streams.add(self)
            watcher = asyncio.create_task(self._watch(receive, reply), name="relay.stream.watch")
            outcome, error = "upstream_error", None  # where not even the error has a name
            try:
                outcome, error = await self._live(call, record, span, reply)
                if not reply.complete:
                    # The server would complain of a response that is not whole, had it not noticed that nobody wants it.
                    await asyncio.wait([watcher], timeout=ABORTED_SECONDS)
            except asyncio.CancelledError:
                outcome = "shutdown"  # not by `end`: the server takes the task down
                raise
            finally:
                self._open_streams.discard(self)
                self._task = None
                record.ends(outcome)
                self._close_upstream()
                span.end(outcome, record=record, facts=self._facts, error=error)
                await reply.close()
                await _cancel(watcher)
                if self._read_ahead is not None:
                    await self._read_ahead.ended()

    def end(self, outcome: str, error: ApiError | None = None) -> None:
        """End the stream now, wherever it waits; `outcome` is its name, and `error` is what the client is told.

        Does nothing to a stream that has ended.
        """
        if (
            self._ending is None
            and self._task is not None
            and self._record is not None
            and self._reply is not None
            and not self._reply.complete
        ):
            self._ending, self._ending_error = outcome, error
            self._record.ends(outcome)
            self._close_upstream()
            self._task.cancel()

    def look_after(self, now: float) -> None:
        """The sweep's look: end what waits for too long, keep alive what is silent, count what the parser holds."""
        record, reply, source = self._record, self._reply, self._source
        if record is None or reply is None or reply.complete or self._ending is not None:
            return
        if source is not None:
            self._count_parsed(record, source.parsed_bytes)
        if self._span is not None:
            self._span.swept(record, now)
        progress = Progress(record.bytes_in, self._data_chunks, record.bytes_out, source is not None, reply.unsent())
        limits = self._limits
        match self._patience.look(now, progress):
            case "read":
                self.end("timeout", UpstreamTimeoutError("the upstream fell silent"))
            case "idle":
                self.end("timeout", IdleError(limits.idle))
            case "total":
                self.end("timeout", TooLongError(limits.total))
            case "write":
                self.end("slow_client")
            case "heartbeat" if self._scanner.at_boundary:
                reply.beat()
                if self._span is not None:
                    self._span.event("heartbeat")

    async def _watch(self, receive: Receive, reply: Reply) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # a server may say more than once that the request's body is over
        # A response that is complete looks the same from here; `send` returned before this task could run.
        if not reply.complete and self._ending is None and self._record is not None:
            self._record.disconnected()
            self.end("client_disconnected")

    async def _live(self, call: Call, record: StreamRecord, span: Span, reply: Reply) -> tuple[str, ApiError | None]:
        """Pump until the end and tell the client how it went: the outcome, and the error if there was one."""
        error: UpstreamError | None = None
        try:
            await self._pump(call, record, span, reply)
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
            return str(self._ending), await self._part(reply)
        if error is None:
            return "upstream_error" if self._facts.failed else "completed", None
        record.ends(error.outcome)
        self._close_upstream()
        try:
            if error.outage and self._degraded_message and self._endpoint.degraded and not reply.started:
                await reply.start(DEGRADED)
                await reply.finish(degraded_stream(self._model, self._degraded_message))
            else:
                await reply.fail(error, at_boundary=self._scanner.at_boundary)
        except asyncio.CancelledError:
            # The client left, or the relay ends, before it heard of the failure: the failure is still what ended the stream.
            if not self._took_end():
                raise
        return error.outcome, error

    async def _part(self, reply: Reply) -> ApiError | None:
        """Take leave of the client as the reason for the end allows."""
        if self._ending == "client_disconnected":
            return None
        if self._ending == "slow_client":
            reply.abort()
            return None
        error = self._ending_error
        await reply.part(error or ShuttingDownError(), at_boundary=self._scanner.at_boundary)
        return error

    def _took_end(self) -> bool:
        """Whether `end` was called; its cancellation of this task is then over."""
        if self._ending is None:
            return False
        if self._task is not None:
            self._task.uncancel()
        return True

    async def _pump(self, call: Call, record: StreamRecord, span: Span, reply: Reply) -> None:
        source: Source = await self._upstream.stream(
            self._endpoint.upstream_path, call.content, span.headers, span.event
        )
        del call  # its JSON may be megabytes, and a stream may be hours
        if self._make_read_ahead is not None:
            source = self._read_ahead = self._make_read_ahead(source)
        self._source = source
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
            self._data_chunks += b"data" in chunk
            if not reply.started:
                await reply.start(source.headers)
            record.hold(size)
            try:
                await reply.chunk(chunk)
            finally:
                record.release(size)
            if facts.done and scanner.at_boundary:
                await reply.finish()
                await _linger(source)
                return
            chunk = await source.read()
        facts.eof()
        if facts.done:
            # Some upstreams leave out the blank line after the end marker; without it the client would not get the event.
            await reply.finish(b"" if scanner.at_boundary else b"\n\n")
            return
        where = "between two events" if scanner.at_boundary else "in the middle of an event"
        raise UpstreamProtocolError(f"the upstream's stream ended {where}, without {self._endpoint.end}")

    def _count_parsed(self, record: StreamRecord, nbytes: int) -> None:
        """Charge the stream with what its parser holds now; a number that is as old as the last sweep."""
        record.hold(nbytes - self._parsed)
        self._parsed = nbytes

    def _close_upstream(self) -> None:
        source, self._source = self._source, None
        if source is not None and self._record is not None:
            source.close()
            self._record.upstream_closed()
            self._count_parsed(self._record, 0)


async def _linger(source: Source) -> None:
    """Let the upstream end its body, so that the connection can be used again; whatever else happens, it is closed."""
    with contextlib.suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(LINGER_SECONDS):
            await source.read()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # a watcher that failed has a bug: say so
