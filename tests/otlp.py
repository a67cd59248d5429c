"""A receiver of OTLP over HTTP that decodes what a relay exports, as OpenTelemetry's own messages."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Collector", "attributes"]

MESSAGES: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Collector:
    """Receives on a port of its own.

    bodies     all that was answered, as it came
    answers    while this is cleared, what comes is left without an answer
    """

    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = {path: [] for path in MESSAGES}
        self.bodies: list[bytes] = []
        self.answers = Event()
        self.answers.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.answers.wait()
                collector.bodies.append(body)
                collector.requests[self.path].append(MESSAGES[self.path].FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests["/v1/traces"]
            for of in request.resource_spans
            for by in of.scope_spans
            for span in by.spans
        ]

    @property
    def logs(self) -> list[LogRecord]:
        return [
            record
            for request in self.requests["/v1/logs"]
            for of in request.resource_logs
            for by in of.scope_logs
            for record in by.log_records
        ]

    @property
    def metrics(self) -> dict[str, Metric]:
        """By name, as they were last sent."""
        return {
            metric.name: metric
            for request in self.requests["/v1/metrics"]
            for of in request.resource_metrics
            for by in of.scope_metrics
            for metric in by.metrics
        }

    def of_kind(self, kind: int) -> list[Span]:
        return [span for span in self.spans if span.kind == kind]

    @property
    def clients(self) -> list[Span]:
        return self.of_kind(Span.SPAN_KIND_CLIENT)

    @property
    def servers(self) -> list[Span]:
        return self.of_kind(Span.SPAN_KIND_SERVER)

    def resource(self) -> dict[str, Any]:
        return attributes(self.requests["/v1/traces"][0].resource_spans[0].resource)

    def clear(self) -> None:
        self.bodies.clear()
        for received in self.requests.values():
            received.clear()

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def attributes(holder: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [plain(item) for item in found.values] if kind == "array_value" else found

    return {pair.key: plain(pair.value) for pair in holder.attributes}
