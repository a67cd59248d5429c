"""Creates the SDK's span object when a span ends instead of when it starts, because open SDK spans are large.

An open span of the SDK holds 2.5 KiB (two bounded deques, a lock, its attributes twice), and each stream has two spans that may
be open for an hour. Here an open span holds its context, its name, its attributes and its events. When it ends, the SDK's
tracer creates its span with the ids, the start time and the sampling decision that were fixed at the start; attribute limits,
span processors and export then happen in the SDK as for any other span.

The law of this file: `start_span` decides nothing by itself. It asks the provider's own sampler and id generator, so that ids
and sampling are those that the SDK would have chosen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
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
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from .export_queue import ExportQueue

__all__ = ["DeferredTracer"]


class _Event(NamedTuple):
    """One event of a span. `at` is nanoseconds since the epoch."""

    name: str
    about: Mapping[str, AttributeValue] | None
    at: int


class DeferredTracer(Tracer):
    """A tracer of `provider` with this name. Wraps the provider's sampler and id generator.

    queue  the export queue: a span that finds it full when it ends is not made
    """

    def __init__(self, provider: TracerProvider, queue: ExportQueue, name: str) -> None:
        # `before` wraps only once: there may be several tracers of one provider.
        self._sampler = _Sampler.before(provider)
        self._ids = _Ids.before(provider)
        self.sdk = provider.get_tracer(name)
        self.queue = queue

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
        caller = get_current_span(context).get_span_context()
        parent = caller if caller.is_valid else None
        trace_id = parent.trace_id if parent else self._ids.generate_trace_id()
        result = self._sampler.should_sample(context, trace_id, name, kind, attributes, links)
        random = parent.trace_flags.random_trace_id if parent else self._ids.is_trace_id_random()
        flags = (TraceFlags.SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT) | (
            TraceFlags.RANDOM_TRACE_ID if random else TraceFlags.DEFAULT
        )
        own = SpanContext(
            trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=TraceFlags(flags),
            trace_state=result.trace_state,
        )
        if result.decision is Decision.DROP:
            return NonRecordingSpan(own)
        return _DeferredSpan(self, name, own, parent, kind, dict(result.attributes), links, start_time)

    @contextmanager
    def start_as_current_span(self, name: str, *arguments: Any, **options: Any) -> Iterator[Span]:  # type: ignore[override]
        # By the SDK itself: a span that ends with its block is not open for long.
        with self.sdk.start_as_current_span(name, *arguments, **options) as span:
            yield span


class _DeferredSpan(Span):
    """An open span that is recorded. Ignores calls after its end, as the SDK's spans do."""

    __slots__ = (
        "_attributes",
        "_context",
        "_events",
        "_kind",
        "_links",
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
        links: Sequence[Link] | None,
        started: int | None,
    ) -> None:
        self._tracer: DeferredTracer | None = tracer  # None: it has ended
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._links = links
        self._started = started or time.time_ns()
        self._events: list[_Event] = []
        self._status: Status | None = None

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return self._tracer is not None

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        # An attribute that is set again becomes the newest, as in the SDK, which drops the oldest ones above its limit.
        self._attributes.pop(key, None)
        self._attributes[key] = value

    def add_event(
        self, name: str, attributes: Mapping[str, AttributeValue] | None = None, timestamp: int | None = None
    ) -> None:
        self._events.append(_Event(name, attributes, timestamp or time.time_ns()))

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
        if tracer is None:
            return
        if tracer.queue.full and self._context.trace_flags.sampled:
            tracer.queue.lost()
            return
        parent = set_span_in_context(NonRecordingSpan(self._parent), Context()) if self._parent else Context()
        token = _decided.set(self._context)
        try:
            span = tracer.sdk.start_span(self._name, parent, self._kind, self._attributes, self._links, self._started)
        finally:
            _decided.reset(token)
        for event in self._events:
            span.add_event(*event)
        if self._status is not None:
            span.set_status(self._status)
        span.end(end_time)


# While the SDK makes a deferred span: its context, whose ids and sampling are decided already.
_decided: Final[ContextVar[SpanContext | None]] = ContextVar("relay.deferred", default=None)


class _Sampler(Sampler):
    """The provider's sampler, but returns the decision of the start for a deferred span that is being made."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    @classmethod
    def before(cls, provider: TracerProvider) -> _Sampler:
        """Put one in front of the provider's sampler, unless that is one already, and return it."""
        sampler = provider.sampler
        if not isinstance(sampler, cls):
            sampler = provider.sampler = cls(sampler)
        return sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        *others: Any,
    ) -> SamplingResult:
        decided = _decided.get()
        if decided is None:
            return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, *others)
        # Never DROP: a span that is not recorded is not deferred.
        decision = Decision.RECORD_AND_SAMPLE if decided.trace_flags.sampled else Decision.RECORD_ONLY
        return SamplingResult(decision, attributes, decided.trace_state)

    def get_description(self) -> str:
        return self._sampler.get_description()


class _Ids(IdGenerator):
    """The provider's id generator, but returns the ids of the start for a deferred span that is being made."""

    def __init__(self, ids: IdGenerator) -> None:
        self._ids = ids

    @classmethod
    def before(cls, provider: TracerProvider) -> _Ids:
        """Put one in front of the provider's id generator, unless that is one already, and return it."""
        ids: IdGenerator = provider.id_generator
        if not isinstance(ids, cls):
            ids = cls(ids)
            provider.id_generator = ids  # type: ignore[assignment]  # declared with the type of its default
        return ids

    def generate_span_id(self) -> int:
        decided = _decided.get()
        return decided.span_id if decided is not None else self._ids.generate_span_id()

    def generate_trace_id(self) -> int:
        decided = _decided.get()
        return decided.trace_id if decided is not None else self._ids.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        decided = _decided.get()
        return decided.trace_flags.random_trace_id if decided is not None else self._ids.is_trace_id_random()
