"""Sampling by outcome: a trace is exported whole if its root failed, and dropped if not. The same for both apps."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import StatusCode

__all__ = ["FailedTraces", "provider"]


class FailedTraces(SpanProcessor):
    """Keeps the ended spans of each open trace, and hands them to `export` if the trace's root ends with an error."""

    def __init__(self, export: SpanProcessor) -> None:
        self._export = export
        self._open: dict[int, list[ReadableSpan]] = {}

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        assert context is not None, "a span that has ended has a context"
        self._open.setdefault(context.trace_id, []).append(span)
        if span.parent is None:
            spans = self._open.pop(context.trace_id)
            if span.status.status_code is StatusCode.ERROR:
                for each in spans:
                    self._export.on_end(each)

    def shutdown(self) -> None:
        self._export.shutdown()


def provider() -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(FailedTraces(BatchSpanProcessor(ConsoleSpanExporter())))
    return made
