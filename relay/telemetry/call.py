"""The CLIENT span of one call to an upstream: ended explicitly with the stream's outcome, and never made current, since a
stream's end is seldom where its beginning was.

The law of this file: nothing for each chunk. What a stream did is read from its ledger record at its end; what happens to it
meanwhile is told by who finds it out (the first byte, the sweep, the circuit breaker), at most MAX_EVENTS times of a kind.

`paused` is what the sweep sees: since the one before, the stream has spent more than half of the time waiting for its client.
It comes late by two sweeps at most (two seconds), and a client that reads in fits and starts is paused once, not each time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.trace import Span, StatusCode

from diagnostics import StreamRecord

from ..errors import ApiError
from ..protocol.facts import Facts
from ..stream.ending import Ending, TraceIds, log_ending
from .metrics import Operation, Recorder
from .names import EVENT_PREFIX, NAMES, about, printable
from .server import ServerSpan
from .turns import Turns

__all__ = ["MAX_EVENTS", "CallSpan", "ids_of"]

# Of each kind: who needs to know of a ninth pause reads the number of them.
MAX_EVENTS: Final = 8
PAUSED_SHARE: Final = 0.5


class CallSpan:
    """`server` is the SERVER span that it belongs to, which hears of the end; `recorder` the metrics; the end is in `turns`."""

    __slots__ = (
        "_began", "_counts", "_first_chunk", "_operation", "_paused", "_recorder", "_recording", "_server", "_span",
        "_turns", "_waited",
    )  # fmt: skip

    def __init__(
        self,
        span: Span,
        operation: Operation,
        server: ServerSpan | None,
        recorder: Recorder | None,
        turns: Turns,
    ) -> None:
        self._span = span
        self._turns = turns
        self._recording = span.is_recording()
        self._operation = operation
        self._server = server
        self._recorder = recorder
        self._began = time.monotonic()
        self._first_chunk: float | None = None
        self._waited = 0.0
        self._paused = False
        self._counts: dict[str, int] = {}

    @property
    def headers(self) -> Mapping[str, str]:
        """As W3C Trace Context has them; the SDK's propagator makes the same, and a context to find the span in."""
        context = self._span.get_span_context()
        if not context.is_valid:
            return {}
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        state = context.trace_state
        return {"traceparent": traceparent, "tracestate": state.to_header()} if state else {"traceparent": traceparent}

    @property
    def trace_id(self) -> str | None:
        """None where the sampler does not keep the trace: an exemplar would lead nowhere."""
        return format(self._span.get_span_context().trace_id, "032x") if self._recording else None

    def first_chunk(self) -> None:
        self._first_chunk = time.monotonic() - self._began
        self.event("first_chunk")

    def event(self, name: str, **about: str | float) -> None:
        """`name` is one of EVENTS; `about` has its attributes, by the keys of NAMES."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if name == "fallback":  # whoever answers in the end is whom the span is about
            self._span.set_attributes({NAMES[key]: value for key, value in about.items()})
        if self._recording and count <= MAX_EVENTS:
            self._span.add_event(EVENT_PREFIX + name, {NAMES[key]: value for key, value in about.items()})

    def swept(self, record: StreamRecord, since: float, now: float) -> bool:
        """The sweep has looked at the stream, as it did at `since`; monotonic seconds. Whether the client is not waited for."""
        waited = record.waited(now)
        if waited == self._waited and not self._paused:  # nearly always
            return True
        paused = waited - self._waited > PAUSED_SHARE * (now - since)
        self._waited = waited
        if paused is not self._paused:
            self._paused = paused
            self.event("paused" if paused else "resumed", blocked=waited)
        return not paused

    def end(
        self,
        outcome: str,
        *,
        record: StreamRecord | None = None,
        facts: Facts | None = None,
        error: ApiError | None = None,
    ) -> None:
        ending = Ending.of(outcome, record=record, facts=facts, error=error)
        if self._server is not None:
            self._server.told(ending)
        now, seconds = time.time_ns(), time.monotonic() - self._began
        self._turns.take(
            lambda: self._end_span(ending, facts, now),
            lambda: self._measure(ending, seconds),
            # Of a stream only: a record is what it has.
            *([lambda: log_ending(ending, ids_of(self._span))] if record is not None else ()),
        )

    def _end_span(self, ending: Ending, facts: Facts | None, now: int) -> None:
        if self._recording:
            self._span.set_attributes(self._attributes(ending, facts))
            if ending.failed:
                self._span.set_status(StatusCode.ERROR)
            self._span.add_event(EVENT_PREFIX + "close", {NAMES["outcome"]: ending.outcome}, now)
        self._span.end(now)

    def _measure(self, ending: Ending, seconds: float) -> None:
        if self._recorder is not None:
            self._recorder.record(self._operation, ending, seconds, self._first_chunk, self._span)

    def _attributes(self, ending: Ending, facts: Facts | None) -> dict[str, Any]:
        attributes = about(ending)
        if self._first_chunk is not None:
            attributes[NAMES["first_chunk"]] = self._first_chunk
        for kind in ("paused", "heartbeat"):
            if kind in self._counts:
                attributes[NAMES[f"{kind}_count"]] = self._counts[kind]
        if facts is not None:
            attributes |= _names(facts)
        return attributes


def _names(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {
        NAMES["response_id"]: facts.response_id and printable(facts.response_id),
        NAMES["response_model"]: facts.model and printable(facts.model),
        NAMES["finish_reasons"]: tuple(printable(reason) for reason in facts.finish_reasons) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def ids_of(span: Span) -> TraceIds | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return TraceIds(format(context.trace_id, "032x"), format(context.span_id, "016x"), context.trace_flags.sampled)
