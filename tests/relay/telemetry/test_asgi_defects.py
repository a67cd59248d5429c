"""The defects of opentelemetry-instrumentation-asgi, shown in the installed release without any code of the relay's.

A test that fails here is good news: its defect is gone, and its work-around in relay/telemetry/instrumentation.py can go, too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

App = Callable[[Any, Any, Any], Any]
HEAD = {"type": "http.response.start", "status": 200, "headers": []}


class Instrumented:
    """The middleware around an app, its spans and its metrics."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        self._spans = InMemorySpanExporter()
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self._app = OpenTelemetryMiddleware(app, tracer_provider=traces, meter_provider=meters, **options)

    async def get(self, query: bytes = b"") -> None:
        scope = {
            "type": "http", "method": "GET", "path": "/stream", "query_string": query, "headers": [], "scheme": "http",
            "http_version": "1.1", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 5), "root_path": "",
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            pass

        await self._app(scope, receive, send)

    @property
    def spans(self) -> Any:
        return self._spans.get_finished_spans()

    def points(self, name: str) -> list[HistogramDataPoint]:
        data = self._reader.get_metrics_data()
        assert data is not None
        return [
            point
            for of in data.resource_metrics
            for by in of.scope_metrics
            for metric in by.metrics
            if metric.name == name
            for point in metric.data.data_points
            if isinstance(point, HistogramDataPoint)
        ]


def body(content: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def stream(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(HEAD)
    for _number in range(100):
        await send(body(b"data: x\n\n", more=True))
    await send(body(b"", more=False))


def test_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Instrumented(stream, monkeypatch)
    asyncio.run(app.get())
    assert len(app.spans) > 100


def test_success(monkeypatch: pytest.MonkeyPatch) -> None:
    async def left(_: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await send(body(b"data: x\n\n", more=True))
        assert (await receive())["type"] == "http.disconnect"

    app = Instrumented(left, monkeypatch, exclude_spans=["send", "receive"])
    asyncio.run(app.get())
    (span,) = app.spans
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["http.response.status_code"] == 200
    assert "error.type" not in span.attributes


def test_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any) -> None:
        raise ValueError("this prompt cannot be used: a-secret-prompt")

    app = Instrumented(fails, monkeypatch)
    with pytest.raises(ValueError, match="a-secret-prompt"):
        asyncio.run(app.get())
    (span,) = app.spans
    assert "a-secret-prompt" in span.status.description
    assert "a-secret-prompt" in span.events[0].attributes["exception.stacktrace"]


def test_query(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Instrumented(stream, monkeypatch, exclude_spans=["send", "receive"])
    asyncio.run(app.get(b"prompt=a-secret-prompt"))
    (span,) = app.spans
    assert span.attributes["url.query"] == "prompt=a-secret-prompt"


def test_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", "(")
    with pytest.raises(re.error):
        Instrumented(stream, monkeypatch)


def test_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []

    async def leaves_its_send(_: Any, __: Any, send: Any) -> None:
        left.append(send)

    app = Instrumented(leaves_its_send, monkeypatch, exclude_spans=["send", "receive"])

    async def get_then_stream() -> None:
        await app.get()
        await left[0]({**HEAD, "status": 503})
        await left[0](body(b"data: x\n\n", more=False))

    asyncio.run(get_then_stream())
    (point,) = app.points("http.server.request.duration")
    assert point.attributes is not None
    assert "http.response.status_code" not in point.attributes
    assert point.explicit_bounds[-1] == 10.0
