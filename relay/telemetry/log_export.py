"""The log's lines over OTLP, by the SDK's Logger. The SDK's own LoggingHandler is deprecated, and sends source paths and all
attributes of a record. This one sends a line's message, its fields by the names of names.py, and the type of an exception; the
traceback, whose last line may quote a prompt, stays on standard error.
"""

from __future__ import annotations

import logging
from typing import Any, Final

# The packages of the logs signal are documented under these names, underscore and all.
from opentelemetry._logs import LogRecord
from opentelemetry._logs.severity import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits, ReadWriteLogRecord
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from ..stream.ending import TraceIds
from .deferred import bounded
from .export_queue import ExportQueue
from .names import NAMES

__all__ = ["OtlpHandler"]

SEVERITIES: Final = {
    logging.DEBUG: (SeverityNumber.DEBUG, "DEBUG"),
    logging.INFO: (SeverityNumber.INFO, "INFO"),
    logging.WARNING: (SeverityNumber.WARN, "WARN"),
    logging.ERROR: (SeverityNumber.ERROR, "ERROR"),
    logging.CRITICAL: (SeverityNumber.FATAL, "FATAL"),
}
EVENT_NAMES: Final = {"stream ended": "highwater.stream.ended"}
# The logger of the export itself: its lines go to standard error only, since exporting them could fail and log again.
OWN: Final = "relay.telemetry"
# From a field of the log to its key in NAMES; other fields are not sent.
FIELDS: Final = {
    "route": "route",
    "outcome": "outcome",
    "error_type": "error_type",
    "duration_seconds": "duration",
    "first_event_seconds": "first_event",
    "blocked_seconds": "blocked",
    "bytes_in": "bytes_in",
    "bytes_out": "bytes_out",
    "events_in": "events_in",
    "events_out": "events_out",
    "high_water_bytes": "high_water",
    "dropped_events": "dropped_events",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "reason": "reason",
}
_KEYS: Final = tuple((field, NAMES[name]) for field, name in FIELDS.items())


class OtlpHandler(logging.Handler):
    """Emits log lines as OTLP log records, into the provider's bounded queue, which a thread of the SDK exports."""

    def __init__(self, provider: LoggerProvider, queue: ExportQueue) -> None:
        super().__init__(logging.INFO)
        self._queue = queue
        self._resource = provider.resource
        self._scope = InstrumentationScope("highwater.relay", "")
        self._limits = LogRecordLimits()
        self._logger = provider.get_logger(self._scope.name)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == OWN:
            return
        if self._queue.full:
            self._queue.lost()
            return
        message = record.getMessage()
        number, text = SEVERITIES.get(record.levelno, (SeverityNumber.UNSPECIFIED, record.levelname))
        limits = self._limits
        attributes = bounded(
            _attributes(record), limits.max_log_record_attributes, limits.max_log_record_attribute_length
        )
        told = _Told(
            timestamp=int(record.created * 1e9),
            context=_context(getattr(record, "trace_ids", None)),
            severity_number=number,
            severity_text=text,
            body=message,
            attributes=attributes,
            event_name=EVENT_NAMES.get(message),
        )
        self._logger.emit(_Bounded(told, self._resource, self._scope, limits))  # type: ignore[call-overload]  # the SDK's takes it


class _Told(LogRecord):
    """A record that nobody holds but the queue: the SDK's processor copies each, to drop the context of its copy."""

    def __copy__(self) -> _Told:
        return self


class _Bounded(ReadWriteLogRecord):
    """A record whose attributes are within the limits already: the SDK's would check and copy each."""

    def __post_init__(self) -> None:
        pass


def _context(ids: TraceIds | None) -> Context:
    if ids is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if ids.sampled else TraceFlags.DEFAULT)
    span = NonRecordingSpan(
        SpanContext(int(ids.trace_id, 16), int(ids.span_id, 16), is_remote=False, trace_flags=flags)
    )
    return set_span_in_context(span, Context())


def _attributes(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", {})
    attributes = {name: fields[field] for field, name in _KEYS if field in fields}
    if record.exc_info and record.exc_info[0]:
        attributes["exception.type"] = record.exc_info[0].__qualname__
    return attributes
