"""The CLIENT span of one call to an upstream: ended explicitly with the stream's outcome, and never the current span, since a
stream mostly ends in another context than it began in.

The law of this file: no work for each chunk. A stream's counts are read from its ledger record when it ends; span events are
added where they happen (first byte, sweep, circuit breaker), at most MAX_EVENTS of a kind.

The sweep adds the event `paused` where the stream has spent more than half of the time since the sweep before waiting for its
client. It is late by two sweeps at most (two seconds), and a client that reads in bursts makes one such event, not many.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.trace import Span, StatusCode

from diagnostics import StreamRecord

from ..protocol.facts import Facts
from ..stream.ending import Ending, TraceIds, log_ending
from .loop_turns import LoopTurns, Step
from .metrics.genai import Operation, Recorder
from .names import EVENT_PREFIX, NAMES, about, printable
from .server import ServerSpan

__all__ = ["MAX_EVENTS", "CallSpan", "ids_of"]

# Span events of each kind; the attributes have the number of all pauses and heartbeats.
MAX_EVENTS: Final = 8
PAUSED_SHARE: Final = 0.5

_FIRST_CHUNK: Final = EVENT_PREFIX + "first_chunk"
_CLOSE: Final = EVENT_PREFIX + "close"


class CallSpan:
    """The CLIENT span of one call (stream.call.Span).

    server     the request's SERVER span, which gets the facts of the end too; None where it is not traced
    recorder   the metrics; None where they are off
    turns      runs the work of the end in steps
    """

    __slots__ = (
        "_began", "_counts", "_first_chunk", "_ids", "_operation", "_paused", "_recorder", "_recording", "_server", "_span",
        "_turns", "_waited",
    )  # fmt: skip

    def __init__(
        self,
        span: Span,
        operation: Operation,
        server: ServerSpan | None,
        recorder: Recorder | None,
        turns: LoopTurns,
    ) -> None:
        self._span = span
        self._ids = ids_of(span)
        self._turns = turns
        self._recording = span.is_recording()
        self._operation = operation
        self._server = server
        self._recorder = recorder
        self._began = time.monotonic()
        self._first_chunk: float | None = None
        self._waited = 0.0
        self._paused = False
        self._counts: dict[str, int] | None = None  # of all kinds but `first_chunk`: most streams have no other event

    @property
    def headers(self) -> Mapping[str, str]:
        """W3C Trace Context. The SDK's propagator makes the same headers, at the cost of a Context object for each call."""
        if self._ids is None:
            return {}
        context = self._span.get_span_context()
        traceparent = f"00-{self._ids.trace_id}-{self._ids.span_id}-{context.trace_flags:02x}"
        state = context.trace_state
        return {"traceparent": traceparent, "tracestate": state.to_header()} if state else {"traceparent": traceparent}

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, for exemplars; None where the trace is not sampled, as an exemplar would lead nowhere."""
        return self._ids.trace_id if self._recording and self._ids is not None else None

    def first_chunk(self) -> None:
        self._first_chunk = time.monotonic() - self._began
        if self._recording:
            self._span.add_event(_FIRST_CHUNK)

    def event(self, name: str, **about: str | float) -> None:
        """Add a span event: `name` is one of EVENTS, `about` its attributes, by the keys of NAMES."""
        counts = self._counts = self._counts or {}
        count = counts[name] = counts.get(name, 0) + 1
        if name == "fallback":  # the span's server.address is that of the upstream that answers
            self._span.set_attributes({NAMES[key]: value for key, value in about.items()})
        if self._recording and count <= MAX_EVENTS:
            self._span.add_event(EVENT_PREFIX + name, {NAMES[key]: value for key, value in about.items()})

    def swept(self, record: StreamRecord, since: float, now: float) -> bool:
        """Add `paused` or `resumed` where that has changed since the sweep at `since` (monotonic seconds). True: not paused."""
        waited = record.waited(now)
        if waited == self._waited and not self._paused:  # nearly always
            return True
        paused = waited - self._waited > PAUSED_SHARE * (now - since)
        self._waited = waited
        if paused is not self._paused:
            self._paused = paused
            self.event("paused" if paused else "resumed", blocked=waited)
        return not paused

    def end(self, ending: Ending, facts: Facts | None = None) -> None:
        if self._server is not None:
            self._server.stream_ended(ending)
        steps: list[Step] = []
        if self._recording or self._recorder is not None:
            now, seconds = time.time_ns(), time.monotonic() - self._began
            steps.append(lambda: self._tell(ending, facts, now, seconds))
        if ending.of_stream:
            steps.append(lambda: log_ending(ending, self._ids))
        self._turns.take(*steps)

    def _tell(self, ending: Ending, facts: Facts | None, now: int, seconds: float) -> None:
        """End the span, and record the metrics."""
        span = self._span
        if self._recording:
            span.set_attributes(self._attributes(ending, facts))
            if ending.failed:
                span.set_status(StatusCode.ERROR)
            span.add_event(_CLOSE, {NAMES["outcome"]: ending.outcome}, now)
            span.end(now)
        if self._recorder is not None:
            self._recorder.record(self._operation, ending, seconds, self._first_chunk, span)

    def _attributes(self, ending: Ending, facts: Facts | None) -> dict[str, Any]:
        attributes = about(ending)
        if self._first_chunk is not None:
            attributes[NAMES["first_chunk"]] = self._first_chunk
        for kind in ("paused", "heartbeat"):
            if self._counts and kind in self._counts:
                attributes[NAMES[f"{kind}_count"]] = self._counts[kind]
        if facts is not None:
            attributes |= _names(facts)
        if ending.outcome != "completed" and self._first_chunk is not None:
            # An answer that began has a reason for its end, even where its upstream did not come to telling one.
            attributes.setdefault(NAMES["finish_reasons"], ("error",))
        return attributes


def _names(facts: Facts) -> dict[str, Any]:
    names: dict[str, Any] = {}
    if facts.response_id is not None:
        names[NAMES["response_id"]] = printable(facts.response_id)
    if facts.model is not None:
        names[NAMES["response_model"]] = printable(facts.model)
    if facts.finish_reasons:
        names[NAMES["finish_reasons"]] = tuple(map(printable, facts.finish_reasons))
    return names


def ids_of(span: Span) -> TraceIds | None:
    """The ids of a span for its log line; None for a span without a valid context."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    return TraceIds(trace_id.hex(), span_id.hex(), context.trace_flags.sampled)
