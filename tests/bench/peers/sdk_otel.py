"""The same with OpenTelemetry's ASGI instrumentation as it comes, and prometheus-client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import Counter, Gauge
from sdk import app as fastapi_app

OPEN = Gauge("open_streams", "Streams open now.")
CHUNKS = Counter("chunks", "Chunks sent.")


class Nowhere(SpanExporter):
    """Exporting costs what it costs elsewhere; here it is left out."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Nowhere()))
trace.set_tracer_provider(provider)


async def counted(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        await fastapi_app(scope, receive, send)
        return

    async def counting_send(message: Any) -> None:
        if message["type"] == "http.response.body":
            CHUNKS.inc()
        await send(message)

    with OPEN.track_inprogress():
        await fastapi_app(scope, receive, counting_send)


app = OpenTelemetryMiddleware(counted)
