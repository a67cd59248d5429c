"""The SERVER span while a request is served: sampled by its first attributes, current, writable, and not to be ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from relay.telemetry.deferred import DeferredTracer, Traces
from relay.telemetry.export_queue import ExportQueue
from relay.telemetry.loop_turns import LoopTurns
from relay.telemetry.server import Requests, traced_app

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def stable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay asks for them; the instrumentation looks once."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")


class Chooses(Sampler):
    """Keeps what is asked for on this path, and remembers what it was shown."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.shown: list[dict[str, Any]] = []

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, attributes: Any = None, *_: Any
    ) -> SamplingResult:
        self.shown.append(dict(attributes))
        kept = attributes["url.path"] == self._path
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kept else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "chooses"


async def app(*_: Any) -> None:
    pass


def served(
    inner: Callable[..., Any] = app,
    *,
    path: str = "/v1/models",
    headers: Sequence[tuple[bytes, bytes]] = (),
    status: int | None = 200,
    sampler: Sampler = ALWAYS_ON,
) -> Sequence[ReadableSpan]:
    """The spans that are exported of one request, which `inner` serves."""
    spans = InMemorySpanExporter()
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    processor = SimpleSpanProcessor(spans)
    provider.add_span_processor(processor)
    turns = LoopTurns()
    queue = ExportQueue("spans", "OTEL_BSP_MAX_QUEUE_SIZE")
    tracer = DeferredTracer(Traces(provider, processor, SpanLimits(), queue), "test")
    requests = Requests(["/v1/models", "/v1/topics/{topic}"], tracer, None, turns)
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"prompt=a-secret", "headers": [*headers],
        "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 80), "client": ("127.0.0.9", 5), "root_path": "",
    }  # fmt: skip

    async def serve() -> None:
        request = requests.seen(scope)
        assert request is not None
        try:
            await traced_app(inner)(scope, None, None)
        finally:
            request.over(status)
            await turns.over()

    with contextlib.suppress(ZeroDivisionError):
        asyncio.run(serve())
    return spans.get_finished_spans()


def told(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


def test_what_the_instrumentation_tells_stands_in_it() -> None:
    (span,) = served()
    assert (span.name, span.kind) == ("GET /v1/models", SpanKind.SERVER)
    expected = {
        "http.request.method": "GET", "url.path": "/v1/models", "http.route": "/v1/models", "url.scheme": "http",
        "network.protocol.version": "1.1", "client.address": "127.0.0.9", "client.port": 5,
        "http.response.status_code": 200,
    }  # fmt: skip
    assert {name: told(span)[name] for name in expected} == expected
    assert "a-secret" not in str(told(span))


def test_a_path_that_no_route_has_does_not() -> None:
    (span,) = served(path="/a-secret", status=404)
    assert span.name == "GET"
    assert told(span)["url.path"] == "(unrouted)"
    assert "a-secret" not in str(told(span))


def test_it_is_below_the_callers_span_and_above_those_of_its_app() -> None:
    seen = []

    async def inner(*_: Any) -> None:
        seen.append(get_current_span().get_span_context())

    (span,) = served(inner, headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert [context.span_id for context in seen] == [span.context.span_id]
    assert not get_current_span(Context()).get_span_context().is_valid


def test_whoever_has_it_may_fill_it_and_not_end_it() -> None:
    async def inner(*_: Any) -> None:
        span = get_current_span()
        assert span.is_recording()
        span.end()
        span.set_attribute("theirs", 1)

    (span,) = served(inner)
    assert told(span)["theirs"] == 1
    assert told(span)["http.response.status_code"] == 200


def test_of_an_exception_it_has_the_type() -> None:
    async def inner(*_: Any) -> None:
        raise ZeroDivisionError("a-secret prompt")

    (span,) = served(inner, status=500)
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("exception", {"exception.type": "ZeroDivisionError"})
    ]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert told(span)["error.type"] == "500"


@pytest.mark.parametrize(("path", "route"), [("/v1/models", "/v1/models"), ("/v1/topics/a", "/v1/topics/{topic}")])
def test_a_sampler_is_shown_method_path_and_route(path: str, route: str) -> None:
    sampler = Chooses("/v1/models")
    spans = served(path=path, sampler=sampler)
    assert sampler.shown == [{"http.request.method": "GET", "url.path": route, "http.route": route}]
    assert len(spans) == (route == "/v1/models")


def test_a_client_that_left_before_an_answer_has_no_status() -> None:
    (span,) = served(status=None)
    assert "http.response.status_code" not in told(span)
    assert span.status.status_code is StatusCode.UNSET
