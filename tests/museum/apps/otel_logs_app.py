"""A log processor for each job, shut down after it. A hook that runs at a fork keeps each one, and its exporter."""

from asgi import service
from opentelemetry.sdk._logs import LogData, LogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope


def job():
    processor = BatchLogRecordProcessor(InMemoryLogExporter())
    for number in range(10):
        processor.emit(LogData(LogRecord(body=f"step {number}"), InstrumentationScope("job")))
    processor.shutdown()


app = service(job)
