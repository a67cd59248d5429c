"""The same with OpenTelemetry's ASGI instrumentation and OTLP exporter as they come, and prometheus-client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import Counter, Gauge
from sdk import app as fastapi_app

OPEN = Gauge("open_streams", "Streams open now.")
CHUNKS = Counter("chunks", "Chunks sent.")

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
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
