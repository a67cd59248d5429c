"""Spans and log records that find their export queue full are not made, but counted; exported ones leave the queue."""

from __future__ import annotations

import logging
import threading

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from relay.telemetry.deferred import DeferredTracer, Traces
from relay.telemetry.export_queue import ExportQueue

SIZE = "OTEL_BSP_MAX_QUEUE_SIZE"


def export_queue(monkeypatch: pytest.MonkeyPatch, size: int) -> ExportQueue:
    monkeypatch.setenv(SIZE, str(size))
    return ExportQueue("spans", SIZE)


def test_as_many_enter_as_the_queue_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = export_queue(monkeypatch, 2)
    assert [found.enter(), found.enter(), found.enter()] == [True, True, False]
    assert found.full
    found.leave(1)
    assert not found.full
    assert [found.enter(), found.enter()] == [True, False]


def test_every_thread_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = export_queue(monkeypatch, 4_004)  # each of four threads may be one ahead

    def use() -> None:
        for _ in range(1_000):
            assert found.enter()
            assert found.enter()
            found.leave(1)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.enter() for _ in range(5)] == [True, True, True, True, False]


def test_losses_are_said_once_a_minute_with_their_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SIZE, "7")
    now = [100.0]
    found = ExportQueue("spans", SIZE, lambda: now[0])
    with caplog.at_level(logging.WARNING, "relay.telemetry"):
        for at in (100.0, 130.0, 159.9, 160.0):
            now[0] = at
            found.lost()
    assert ["lost, 1 so far" in caplog.messages[0], "lost, 4 so far" in caplog.messages[1]] == [True, True]
    assert len(caplog.messages) == 2
    assert SIZE in caplog.messages[0]


def test_a_span_that_the_queue_has_no_place_for_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    made = TracerProvider(shutdown_on_exit=False)
    processor = SimpleSpanProcessor(kept)
    made.add_span_processor(processor)
    found = export_queue(monkeypatch, 1)
    tracer = DeferredTracer(Traces(made, processor, SpanLimits(), found), "test")
    tracer.start_span("first").end()
    assert found.enter()
    tracer.start_span("second").end()
    found.leave(1)
    tracer.start_span("third").end()
    assert [span.name for span in kept.get_finished_spans()] == ["first", "third"]


@pytest.mark.parametrize(("given", "size"), [("", 2048), (" 16 ", 16), ("many", 2048)])
def test_its_size_is_the_queues(monkeypatch: pytest.MonkeyPatch, given: str, size: int) -> None:
    monkeypatch.setenv(SIZE, given)
    assert ExportQueue("spans", SIZE).size == size
