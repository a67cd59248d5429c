"""One relayed stream, from its request to its end.

The law of this file. The request's own task opens the upstream's stream, starts the response with its first bytes, lets the
rest flow (pump.py) and sleeps until the stream's end. While the client's connection is full, the upstream's is paused:
nothing is queued and nothing is dropped, so that a slow client slows its upstream (backpressure). A client that disconnects,
the sweep's time-outs and the shutdown all end the stream by `StreamLife.end`, at any moment: before the upstream has answered,
while it is silent, while the client does not read. The upstream is closed in the same step, without an await.

The response starts with the upstream's first bytes (or, where the caller asks for that, with the first heartbeat). Until then
a failure is an HTTP status; afterwards it is an SSE event `data: {"error": {...}}`, and the body ends without the end marker
(`[DONE]` for a chat; protocol/endpoints.py lists all of them).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final

from diagnostics import StreamRecord

from ..client.reply import Reply
from ..errors import (
    ApiError,
    IdleError,
    ShuttingDownError,
    TooLongError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    without_frames,
)
from ..protocol.facts import Facts
from ..upstream.body import Body
from ..upstream.upstreams import Upstreams
from .call import Call, Span, StreamOptions
from .degraded import DEGRADED, degraded_stream
from .patience import Patience, Progress, Verdict
from .pump import Pump
from .read_ahead import ReadAhead

__all__ = ["StreamLife"]

# After the end marker the upstream has this long to end its body, so that its connection can be reused. The client has its
# whole answer by then.
LINGER_SECONDS: Final = 0.25


class StreamLife:
    """One stream between its request and its end: the Listener of its client, and one of the streams that the sweep visits."""

    __slots__ = (
        "_calm",
        "_chunks",
        "_ending",
        "_ending_error",
        "_endpoint",
        "_flows",
        "_looked_at",
        "_model",
        "_options",
        "_parsed",
        "_patience",
        "_pump",
        "_read_ahead",
        "_record",
        "_reply",
        "_source",
        "_span",
        "_task",
    )

    def __init__(self, call: Call, options: StreamOptions, record: StreamRecord, span: Span, reply: Reply) -> None:
        self._endpoint, self._model = call.endpoint, call.model
        self._options = options
        self._record = record
        self._span = span
        self._reply = reply
        self._pump = self._make_pump(call, options, record)
        self._looked_at = time.monotonic()
        self._patience = Patience(options.limits, self._looked_at)
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._source: Body | None = None
        self._read_ahead: ReadAhead | None = None
        self._parsed = 0  # the parser's bytes as they are charged to the record
        self._chunks = 0  # the pump's data_chunks at the last look of the sweep
        self._flows = False  # the upstream's connection calls the pump with each piece; nobody awaits `read`
        self._calm = False  # at the last look it flowed and no bytes waited anywhere; the client was not full since
        self._ending: str | None = None
        self._ending_error: ApiError | None = None

    def _make_pump(self, call: Call, options: StreamOptions, record: StreamRecord) -> Pump:
        return Pump(call.endpoint, options.max_event_bytes, record, self._reply.write)

    @property
    def facts(self) -> Facts:
        return self._pump.facts

    # Called by the client's connection (client.client.Listener)

    def paused(self) -> None:
        self._calm = False
        self._record.waits()
        if self._source is not None:
            self._source.pause()

    def resumed(self) -> None:
        self._record.goes_on()
        if self._source is not None:
            self._source.resume()

    def lost(self) -> None:
        if not self._reply.complete and self._ending is None:
            self._record.disconnected()
            self.end("client_disconnected")

    # Called by the sweep and at shutdown

    def end(self, outcome: str, error: ApiError | None = None) -> None:
        """End the stream with this outcome now, whatever its task waits for; `error` is sent to the client.

        Does nothing where the stream has ended.
        """
        if self._ending is None and self._task is not None and not self._reply.complete:
            self._ending, self._ending_error = outcome, error
            self._record.ends(outcome)
            self._close_upstream()
            self._task.cancel()

    def look_after(self, now: float) -> None:
        """The sweep's look: enforce the time-outs, send a heartbeat if one is due, charge the parser's bytes to the record.

        `now` in monotonic seconds. With thousands of streams this is called as often as events come, and most of its cost is
        cache misses on the objects that it reads. So a stream that is calm and has had new chunks takes a short way, which
        reads few objects.
        """
        chunks = self._pump.data_chunks
        if self._calm and chunks != self._chunks:
            verdict = self._patience.moved(now, self._record.bytes_in, chunks)
        elif self._reply.complete or self._ending is not None:
            return
        else:
            verdict = self._look(now, chunks)
        self._chunks, self._looked_at = chunks, now
        if verdict is not None:
            self._act(verdict)

    def _look(self, now: float, chunks: int) -> Verdict | None:
        record, source = self._record, self._source
        if source is not None:
            parsed = source.parsed_bytes
            if parsed != self._parsed:
                self._count_parsed(parsed)
        unpaused = self._span.swept(record, self._looked_at, now)
        unsent = self._reply.unsent()
        self._calm = self._flows and unpaused and unsent is None and not self._parsed
        return self._patience.look(now, Progress(record.bytes_in, chunks, record.bytes_out, source is not None, unsent))

    def _act(self, verdict: Verdict) -> None:
        limits = self._options.limits
        match verdict:
            case "read":
                self.end("timeout", UpstreamTimeoutError("the upstream fell silent"))
            case "idle":
                self.end("timeout", IdleError(limits.idle))
            case "total":
                self.end("timeout", TooLongError(limits.total))
            case "write":
                self.end("slow_client")
            case "heartbeat" if self._pump.at_boundary:
                self._beat()

    def _beat(self) -> None:
        sent = self._reply.beat()
        if sent:
            self._record.sent(sent)
            self._span.event("heartbeat")

    # Called by the response (stream/response.py)

    async def live(self, call: Call, upstream: Upstreams) -> tuple[str, ApiError | None]:
        """Relay the stream to its end and send the client the error if there is one. Returns the outcome and that error."""
        reply = self._reply
        error: UpstreamError | None = None
        try:
            await self._relay(call, upstream)
        except asyncio.CancelledError:
            if self._ending is None:
                raise
        except UpstreamError as problem:
            error = without_frames(problem)
        if self._was_ended():
            return str(self._ending), await self._part()
        if error is None:
            return "upstream_error" if self._pump.facts.failed else "completed", None
        self._record.ends(error.outcome)
        self._close_upstream()
        message = self._options.degraded_message
        try:
            if error.outage and message and self._endpoint.degraded and not reply.started:
                await reply.start(DEGRADED)
                await reply.finish(degraded_stream(self._model, message))
            else:
                await reply.fail(error, at_boundary=self._pump.at_boundary)
        except asyncio.CancelledError:
            # `end` was called while the error was being sent, as to a client that does not read: the outcome is still that of
            # the error, and the client has no complete answer.
            if not self._was_ended():
                raise
            reply.abort()
        return error.outcome, error

    def over(self) -> None:
        """Close the upstream's body and the pump; from here on `end` does nothing."""
        self._task = None
        self._record.goes_on()
        self._close_upstream()
        self._pump.close()

    async def ended(self) -> None:
        """Wait until the read-ahead's task, which `over` has cancelled, is done."""
        if self._read_ahead is not None:
            await self._read_ahead.ended()

    async def _part(self) -> ApiError | None:
        """After `end`: send the client the error, or abort the connection of a slow one. Returns the error if there is one."""
        if self._ending == "client_disconnected":
            return None
        if self._ending == "slow_client":
            self._reply.abort()
            return None
        error = self._ending_error
        await self._reply.fail_or_abort(error or ShuttingDownError(), at_boundary=self._pump.at_boundary)
        return error

    def _was_ended(self) -> bool:
        """Whether `end` was called. If so, takes its cancellation of this task back (`uncancel`)."""
        if self._ending is None:
            return False
        if self._task is not None:
            self._task.uncancel()
        return True

    async def _relay(self, call: Call, upstream: Upstreams) -> None:
        pump, reply = self._pump, self._reply
        source, headers = await self._open(call, upstream)
        chunk = await source.read()
        self._span.first_chunk()
        if not chunk:
            raise UpstreamProtocolError("the upstream's stream ended before its first event")
        events = pump.look(chunk)
        await reply.start(headers)
        pump.hand_on(chunk, events)
        del chunk
        if not pump.done:
            self._flows = source.flow(pump.on_piece, pump.on_end)
            if self._flows:
                await pump.finished
                source.keep()
            else:
                await self._read(source)
        if pump.done:
            await reply.finish()
            if not source.at_end:
                await _linger(source)
            return
        pump.facts.eof()
        if pump.facts.done:
            # Some upstreams leave out the blank line after the end marker; a client dispatches no event without it.
            await reply.finish(b"" if pump.at_boundary else b"\n\n")
            return
        where = "between two events" if pump.at_boundary else "in the middle of an event"
        raise UpstreamProtocolError(f"the upstream's stream ended {where}, without {self._endpoint.end}")

    async def _open(self, call: Call, upstream: Upstreams) -> tuple[Body, Mapping[str, str]]:
        """Open the upstream's stream. Returns its body, and the headers of its response that the client gets."""
        span = self._span
        try:
            opened = await upstream.stream(self._endpoint.upstream_path, call.content, span.headers, span.event)
        finally:
            call.forget_content()
        body = opened.body
        if self._options.read_ahead is not None:
            body = self._read_ahead = self._options.read_ahead(body)
        self._source = body
        return body, opened.headers

    async def _read(self, source: Body) -> None:
        """Relay a body that can only be read (behind a proxy, or read ahead), until the end marker or its end."""
        pump, reply = self._pump, self._reply
        while not pump.done:
            await reply.room()
            chunk = await source.read()
            if not chunk:
                return
            pump.hand_on(chunk, pump.look(chunk))

    def _count_parsed(self, nbytes: int) -> None:
        """Charge the record with the bytes that the parser holds. Called once a sweep: the record's number may be that old."""
        self._record.hold(nbytes - self._parsed)
        self._parsed = nbytes

    def _close_upstream(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()
            self._record.upstream_closed()
            self._count_parsed(0)


async def _linger(source: Body) -> None:
    """Wait LINGER_SECONDS for the end of the upstream's body. If it does not come, closing the body closes the connection."""
    with contextlib.suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(LINGER_SECONDS):
            await source.read()
