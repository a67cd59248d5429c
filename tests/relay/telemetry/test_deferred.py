"""A span that is made when it ends is the span that the SDK would have made when it began."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from relay.telemetry.deferred import DeferredTracer, Traces
from relay.telemetry.export_queue import ExportQueue

ROOM = ExportQueue("spans", "OTEL_BSP_MAX_QUEUE_SIZE")


class Counted(RandomIdGenerator):
    """The ids 1, 2, 3: two providers with one of these each give the same."""

    def __init__(self) -> None:
        self._last = 0

    def generate_span_id(self) -> int:
        self._last += 1
        return self._last

    def generate_trace_id(self) -> int:
        return self.generate_span_id() << 40


def provider(sampler: Sampler = ALWAYS_ON) -> tuple[Traces, InMemorySpanExporter]:
    kept, limits = InMemorySpanExporter(), SpanLimits(max_attribute_length=8, max_events=2, max_span_attributes=6)
    made = TracerProvider(sampler, shutdown_on_exit=False, id_generator=Counted(), span_limits=limits)
    processor = SimpleSpanProcessor(kept)
    made.add_span_processor(processor)
    return Traces(made, processor, limits, ROOM), kept


FLAGS = st.sampled_from([TraceFlags(flags) for flags in range(4)])
PARENTS = st.none() | st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    FLAGS,
    st.just(TraceState([("vendor", "x")])),
)
SAMPLERS = st.sampled_from([ALWAYS_ON, ALWAYS_OFF, ParentBased(ALWAYS_ON), TraceIdRatioBased(0.5)])
STATUSES = st.lists(st.sampled_from([*StatusCode]), max_size=3)
ATTRIBUTES = st.dictionaries(
    st.text(min_size=1), st.text() | st.integers(0, 2**40) | st.booleans() | st.lists(st.text()).map(tuple), max_size=4
)


@settings(deadline=None)
@given(
    SAMPLERS,
    PARENTS,
    st.sampled_from(list(SpanKind)),
    ATTRIBUTES,
    ATTRIBUTES,
    st.booleans(),
    st.integers(0, 4),
    STATUSES,
)
def test_it_is_the_span_that_the_sdk_makes(
    sampler: Sampler,
    parent: SpanContext | None,
    kind: SpanKind,
    first: dict[str, Any],
    then: dict[str, Any],
    linked: bool,
    events: int,
    statuses: list[StatusCode],
) -> None:
    context = set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context()
    link = Link(SpanContext(7, 8, is_remote=True))
    told = []
    for deferred in (False, True):
        made, kept = provider(sampler)
        tracer = DeferredTracer(made, "test") if deferred else made.provider.get_tracer("test")
        span = tracer.start_span("before", context, kind, first, [link] if linked else None, 1_000)
        recording, known = span.is_recording(), span.get_span_context()
        span.set_attributes(then)
        span.set_attribute("one", 1)
        for number in range(events):
            span.add_event(f"event {number}", {"number": number}, 2_000 + number)
        span.update_name("after")
        for status in statuses:
            span.set_status(status, "why" if status is StatusCode.ERROR else None)
            span.set_status(Status(status))
        span.end(9_000)
        span.end(10_000)
        if deferred:  # the SDK warns
            span.set_attribute("late", 1)
        exported = [finished.to_json() for finished in kept.get_finished_spans()]
        assert all(finished.context == known for finished in kept.get_finished_spans())
        told.append((recording, known, span.is_recording(), exported))
    assert told[0] == told[1]


def test_one_that_is_open_weighs_little() -> None:
    made, _ = provider()
    weights = []
    for tracer in (made.provider.get_tracer("sdk"), DeferredTracer(made, "deferred")):
        tracemalloc.start()
        spans = [tracer.start_span("name", attributes={"a": 1, "b": 2}) for _ in range(100)]
        weights.append(tracemalloc.get_traced_memory()[0] / len(spans))
        tracemalloc.stop()
    assert weights[1] < weights[0] / 3, weights


def test_an_exception_is_its_type() -> None:
    made, kept = provider()
    span = DeferredTracer(made, "test").start_span("name")
    span.record_exception(ValueError("a-secret-prompt"))
    span.end()
    (finished,) = kept.get_finished_spans()
    assert "a-secret-prompt" not in finished.to_json()
    assert finished.events[0].attributes == {"exception.type": "ValueErr"}  # cut by the limit


@pytest.mark.parametrize("order", ["deferred first", "sdk first"])
def test_the_providers_other_tracers_go_on_as_before(order: str) -> None:
    made, kept = provider()
    if order == "deferred first":
        deferred = DeferredTracer(made, "deferred")
        plain = made.provider.get_tracer("plain")
    else:
        plain = made.provider.get_tracer("plain")
        deferred = DeferredTracer(made, "deferred")
    outer = deferred.start_span("outer")
    inner = plain.start_span("inner", set_span_in_context(outer))
    inner.end()
    outer.end()
    ended = {span.name: span for span in kept.get_finished_spans()}
    assert ended["inner"].parent == ended["outer"].context
    assert ended["inner"].context.span_id != ended["outer"].context.span_id
