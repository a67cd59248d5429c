"""Creates a span's object when the span ends instead of when it starts, because open SDK spans are large, and slow to make.

An open span of the SDK holds 2.5 KiB (two bounded deques, a lock, its attributes twice), and each stream has two spans that may
be open for an hour. Here an open span holds its context, its name, its attributes and its events. When it ends it becomes a
ReadableSpan, what the SDK's spans become at their end, and goes to the provider's span processor.

The law of this file: nothing is decided here. The provider's own sampler and id generator are asked, and its limits are kept,
so that ids, sampling and what is exported are those of the SDK (tests/relay/telemetry/test_deferred.py compares them). A span
that is not sampled is never made: no processor of the relay's would take it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
)
from opentelemetry.util.types import AttributeValue

from .export_queue import ExportQueue

__all__ = ["DeferredTracer", "Traces", "bounded"]

_PLAIN: Final = frozenset({int, float, bool})  # the types of values that no limit cuts
_NONE: Final[Mapping[str, AttributeValue]] = {}
_UNSET: Final = Status(StatusCode.UNSET)
# By whether a trace is sampled, and whether its id is random.
_FLAGS: Final = {
    (sampled, random): TraceFlags(sampled * TraceFlags.SAMPLED | random * TraceFlags.RANDOM_TRACE_ID)
    for sampled in (False, True)
    for random in (False, True)
}


class Traces(NamedTuple):
    """A provider, with what it does not tell of itself.

    processor  gets each span when it ends
    limits     on the size of spans
    queue      the processor's: a span that finds it full when it ends is not made
    """

    provider: TracerProvider
    processor: SpanProcessor
    limits: SpanLimits
    queue: ExportQueue


class _Event(NamedTuple):
    """One event of a span. `at` is nanoseconds since the epoch."""

    name: str
    about: Mapping[str, AttributeValue]
    at: int


class DeferredTracer(Tracer):
    """A tracer with this name."""

    def __init__(self, traces: Traces, name: str) -> None:
        self.traces = traces
        self.scope = InstrumentationScope(name, "")
        self._sampler, self._ids = traces.provider.sampler, traces.provider.id_generator
        self._sdk = traces.provider.get_tracer(name)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        if links:
            return self._sdk.start_span(name, context, kind, attributes, links, start_time)
        caller = get_current_span(context).get_span_context()
        parent = caller if caller.is_valid else None
        trace_id = parent.trace_id if parent else self._ids.generate_trace_id()
        result = self._sampler.should_sample(context, trace_id, name, kind, attributes, links)
        random = parent.trace_flags.random_trace_id if parent else self._ids.is_trace_id_random()
        own = SpanContext(
            trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=_FLAGS[result.decision is Decision.RECORD_AND_SAMPLE, bool(random)],
            trace_state=result.trace_state,
        )
        if result.decision is Decision.DROP:
            return NonRecordingSpan(own)
        return _DeferredSpan(self, name, own, parent, kind, result.attributes.copy(), start_time)

    @contextmanager
    def start_as_current_span(self, name: str, *arguments: Any, **options: Any) -> Iterator[Span]:  # type: ignore[override]
        # By the SDK itself: a span that ends with its block is not open for long.
        with self._sdk.start_as_current_span(name, *arguments, **options) as span:
            yield span


class _DeferredSpan(Span):
    """An open span that is recorded. Ignores calls after its end, as the SDK's spans do."""

    __slots__ = (
        "_attributes",
        "_context",
        "_events",
        "_kind",
        "_name",
        "_parent",
        "_started",
        "_status",
        "_tracer",
    )

    def __init__(
        self,
        tracer: DeferredTracer,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        started: int | None,
    ) -> None:
        self._tracer: DeferredTracer | None = tracer  # None: it has ended
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._started = started or time.time_ns()
        self._events: list[_Event] = []
        self._status: Status | None = None

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return self._tracer is not None

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        # An attribute that is set again becomes the newest, as in the SDK, which drops the oldest ones above its limit.
        own = self._attributes
        for key in own.keys() & attributes.keys():
            del own[key]
        own.update(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self.set_attributes({key: value})

    def add_event(
        self, name: str, attributes: Mapping[str, AttributeValue] | None = None, timestamp: int | None = None
    ) -> None:
        self._events.append(_Event(name, attributes or _NONE, timestamp or time.time_ns()))

    def update_name(self, name: str) -> None:
        self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        new_status = status if isinstance(status, Status) else Status(status, description)
        was_ok = self._status is not None and self._status.status_code is StatusCode.OK
        if new_status.status_code is not StatusCode.UNSET and not was_ok:  # the specification's rules
            self._status = new_status

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, AttributeValue] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record the exception's type only: its message and stack may quote a prompt."""
        self.add_event("exception", {"exception.type": type(exception).__qualname__, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        tracer, self._tracer = self._tracer, None
        if tracer is None or not self._context.trace_flags.sampled:
            return
        provider, processor, limits, queue = tracer.traces
        if queue.full:
            queue.lost()
            return
        # What is set from now on goes nowhere: the exporter's thread reads these.
        given, self._attributes = self._attributes, {}
        attributes = bounded(given, limits.max_span_attributes, limits.max_span_attribute_length)
        most, longest = limits.max_event_attributes, limits.max_attribute_length
        events: Sequence[Event] = [Event(name, bounded(about, most, longest), at) for name, about, at in self._events]
        if limits.max_events is not None and len(events) > limits.max_events:
            events = BoundedList.from_seq(limits.max_events, events)
        processor.on_end(
            ReadableSpan(
                self._name,
                self._context,
                self._parent,
                provider.resource,
                attributes,
                events,
                kind=self._kind,
                status=self._status or _UNSET,
                start_time=self._started,
                end_time=end_time or time.time_ns(),
                instrumentation_scope=tracer.scope,
            )
        )


def bounded(
    attributes: Mapping[str, AttributeValue], most: int | None, longest: int | None
) -> Mapping[str, AttributeValue]:
    """The attributes as the SDK bounds them: they themselves where it would cut none. To look is much cheaper than to copy."""
    fit = most is None or len(attributes) <= most
    if fit and _none_cut(attributes.values(), sys.maxsize if longest is None else longest):
        return attributes
    return BoundedAttributes(most, attributes, max_value_len=longest)


def _none_cut(values: Iterable[object], longest: int) -> bool:
    """Whether no value is a string longer than this, or of a type that the SDK changes."""
    for value in values:
        kind = type(value)
        if kind is str:
            if len(value) > longest:  # type: ignore[arg-type]  # a string, by the line above
                return False
        elif kind is tuple:
            if not _none_cut(value, longest):  # type: ignore[arg-type]  # a tuple, by the line above
                return False
        elif kind not in _PLAIN:
            return False
    return True
