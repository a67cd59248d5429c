"""What is exported of a line of the log is what the SDK would export of the same record, within the same limits."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from relay.stream.ending import Ending, TraceIds, log_ending
from relay.telemetry.export_queue import ExportQueue
from relay.telemetry.log_export import OtlpHandler

IDS = TraceIds("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
ENDING = Ending(
    "upstream_error", "upstream_status", "a message", 500, "/v1/chat/completions", 1.5, bytes_in=7, events_in=2
)


class Exported:
    """A provider whose records are kept."""

    def __init__(self) -> None:
        self.provider = LoggerProvider(resource=Resource({"service.name": "relay"}), shutdown_on_exit=False)
        self.exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))

    @property
    def records(self) -> Sequence[ReadableLogRecord]:
        return self.exporter.get_finished_logs()


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "9"},
        {"OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "3"},
        {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4", "OTEL_ATTRIBUTE_COUNT_LIMIT": "5"},
    ],
)
def test_a_record_is_exported_as_the_sdk_exports_it(monkeypatch: pytest.MonkeyPatch, limits: dict[str, str]) -> None:
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    ours, theirs = Exported(), Exported()
    handler = OtlpHandler(ours.provider, ExportQueue("log records", "OTEL_BLRP_MAX_QUEUE_SIZE"))
    log = logging.getLogger("relay.stream")
    monkeypatch.setattr(log, "handlers", [handler])
    monkeypatch.setattr(log, "propagate", False)
    log_ending(ENDING, IDS)
    (mine,) = ours.records
    told = mine.log_record
    whole = Exported()
    with monkeypatch.context() as without:
        for name in limits:
            without.delenv(name)
        log.handlers = [OtlpHandler(whole.provider, ExportQueue("log records", "OTEL_BLRP_MAX_QUEUE_SIZE"))]
        log_ending(ENDING, IDS)
    (unlimited,) = whole.records
    with pytest.warns() if any("COUNT" in name for name in limits) else monkeypatch.context():
        theirs.provider.get_logger("highwater.relay").emit(
            LogRecord(
                timestamp=told.timestamp,
                observed_timestamp=told.observed_timestamp,
                context=told.context,
                severity_number=told.severity_number,
                severity_text=told.severity_text,
                body=told.body,
                attributes=dict(unlimited.log_record.attributes or {}),
                event_name=told.event_name,
            )
        )
    (sdk,) = theirs.records
    assert encode_logs([mine]) == encode_logs([sdk])
    assert told.attributes
