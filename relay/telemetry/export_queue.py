"""Tells whether the export queues are full, so that a span or log record that would be dropped is not created at all.

The SDK's queues are bounded: a full queue drops its oldest entry for each new one. By then the new entry has been created for
nothing, and each drop writes a log record of its own. While the Collector is unreachable every stream would pay for that. Here
the code that is about to create a span or a record asks `queue.full` first, and counts it with `queue.lost` instead of creating
it. The queue therefore keeps the entries from the beginning of an outage; it advances with each batch that the exporter gives
up.

    queue.full     whether the queue is full; asked before something is created
    Spans, Logs    the SDK's batch processors, which count what is put in; their exporters count what is taken out
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from ..log import Throttle
from .sdk_warnings import LOG_INTERVAL_SECONDS

__all__ = ["ExportQueue", "Logs", "Spans"]

log = logging.getLogger("relay.telemetry")

DEFAULT_SIZE: Final = 2_048  # the specification's


class ExportQueue:
    """Counts the entries in one signal's export queue. Used by all threads that put entries in, and by the exporter's."""

    def __init__(self, what: str, variable: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`what` are the entries, for the log; `variable` is the OTEL_* variable with the size of the SDK's queue."""
        self.size = _size(variable)
        self._what = what
        self._variable = variable
        self._lock = threading.Lock()
        self._waiting = 0
        self._lost = 0
        self._throttle = Throttle(LOG_INTERVAL_SECONDS, clock)

    @property
    def full(self) -> bool:
        return self._waiting >= self.size

    def enter(self) -> bool:
        """Count an entry into the queue. Returns False, and counts it as lost, where the queue is full."""
        with self._lock:
            if self._waiting < self.size:
                self._waiting += 1
                return True
        self.lost()
        return False

    def leave(self, count: int) -> None:
        """Count entries out of the queue: they are being exported."""
        with self._lock:
            self._waiting -= count

    def lost(self) -> None:
        """Count an entry that was dropped or not made; logs that once in LOG_INTERVAL_SECONDS."""
        with self._lock:
            self._lost += 1
            lost = self._lost
            due = self._throttle.due()
        if not due:
            return
        log.warning(
            "the Collector does not take all %s: no more than %d wait (%s), others are lost, %d so far (more of it is not "
            "logged for %g s)",
            self._what, self.size, self._variable, lost, LOG_INTERVAL_SECONDS,
        )  # fmt: skip


class Spans(BatchSpanProcessor):
    """The SDK's batch processor, with `queue`."""

    def __init__(self) -> None:
        self.queue = ExportQueue("spans", "OTEL_BSP_MAX_QUEUE_SIZE")
        super().__init__(_SpanExporter(self.queue), max_queue_size=self.queue.size)

    def on_end(self, span: ReadableSpan) -> None:
        # The SDK's own test: a span that is not sampled is not queued.
        if span.context and span.context.trace_flags.sampled and self.queue.enter():
            super().on_end(span)


class Logs(BatchLogRecordProcessor):
    """The SDK's batch processor, with `queue`."""

    def __init__(self) -> None:
        self.queue = ExportQueue("log records", "OTEL_BLRP_MAX_QUEUE_SIZE")
        super().__init__(_LogExporter(self.queue), max_queue_size=self.queue.size)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        if self.queue.enter():
            super().on_emit(log_record)


class _SpanExporter(OTLPSpanExporter):
    def __init__(self, queue: ExportQueue) -> None:
        super().__init__()
        self._queue = queue

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._queue.leave(len(spans))
        return super().export(spans)


class _LogExporter(OTLPLogExporter):
    def __init__(self, queue: ExportQueue) -> None:
        super().__init__()
        self._queue = queue

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._queue.leave(len(batch))
        return super().export(batch)


def _size(variable: str) -> int:
    text = os.environ.get(variable, "").strip()
    try:
        return int(text or DEFAULT_SIZE)
    except ValueError:
        log.warning("%s is %r: it must be a whole number; it is %d", variable, text, DEFAULT_SIZE)
        return DEFAULT_SIZE
