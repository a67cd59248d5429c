"""Facts -> OpenTelemetry. The only file that imports it, and only when traces have somewhere to go.

Without OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) nothing of OpenTelemetry is loaded, and the relay
hands a caller's `traceparent` on unchanged, as a hop that takes no part in the trace does (W3C Trace Context).

With it, a relayed request is two spans: SERVER, by the ASGI instrumentation, and CLIENT for the upstream, ended explicitly
with the stream's outcome and never made current, since a stream's end is seldom where its beginning was. No prompt,
completion, header or query reaches a span: the instrumentation is shown a scope without them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from .errors import ApiError
from .facts import Facts

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

    from .reply import Receive, Scope, Send
    from .stream import Call, Span

__all__ = ["Telemetry", "setup"]

log = logging.getLogger("relay.telemetry")

# The one table of names. GenAI semantic conventions, all still in development; https://opentelemetry.io/docs/specs/semconv/gen-ai/
NAMES: Final = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "request_stream": "gen_ai.request.stream",
    "response_id": "gen_ai.response.id",
    "response_model": "gen_ai.response.model",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "first_chunk": "gen_ai.response.time_to_first_chunk",  # seconds
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "server_address": "server.address",
    "server_port": "server.port",
    "error_type": "error.type",
    "status": "http.response.status_code",
    "outcome": "highwater.stream.outcome",  # ours: the ledger's word for how the stream ended
}
PROVIDER: Final = "openai"  # the protocol that is spoken; who speaks it is in server.address

# Whoever calls the relay chooses the model's name; it must not choose how large a span is.
MAX_ATTRIBUTE_CHARACTERS: Final = 256
MAX_NAME_CHARACTERS: Final = 128

FAILED: Final = frozenset({"upstream_error", "timeout"})
UNTRACED_PATHS: Final = frozenset({"/healthz", "/readyz"})
SHOWN_HEADERS: Final = frozenset({b"host", b"content-length", b"traceparent", b"tracestate", b"baggage"})
TRACE_HEADERS: Final = ("traceparent", "tracestate")

# The collector may be dead; the relay ends anyway.
FLUSH_SECONDS: Final = 3.0
LOG_INTERVAL_SECONDS: Final = 60.0

_HIDDEN: Final = "relay.scope"


class Telemetry:
    """Tracing that is off: it costs a request two look-ups in its headers."""

    @property
    def enabled(self) -> bool:
        return False

    def wrap(self, app: Any) -> Any:
        """`app`, with a SERVER span for each request where tracing is on."""
        return app

    def call_span(self, call: Call, headers: Mapping[str, str], address: tuple[str, int]) -> Span:
        """A span for one call to the upstream at `address`; `headers` are those of the caller's request."""
        return _Untraced({name: headers[name] for name in TRACE_HEADERS if name in headers})

    async def close(self) -> None:
        """Send what is not sent yet, within FLUSH_SECONDS."""


class _Untraced:
    trace_id: str | None = None

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def first_chunk(self) -> None:
        pass

    def end(self, outcome: str, *, facts: Facts | None = None, error: ApiError | None = None) -> None:
        pass


def setup(routes: Collection[str]) -> Telemetry:
    """Tracing as the standard OTEL_* variables say. `routes` are the paths that may name a span."""
    environment = os.environ
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if (
        not any(environment.get(name, "").strip() for name in endpoints)
        or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none"
    ):
        return Telemetry()
    # Read once, when the instrumentation is imported: the stable names for HTTP.
    environment.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    return _Traced(_provider(), routes)


def _provider() -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    _quieten()
    name = os.environ.get("OTEL_SERVICE_NAME") or "relay"
    provider = TracerProvider(
        resource=Resource.create({"service.name": name}),
        span_limits=SpanLimits(max_attribute_length=MAX_ATTRIBUTE_CHARACTERS),
        shutdown_on_exit=False,  # `close` does it, and does not wait for ever
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class _Traced(Telemetry):
    def __init__(self, provider: TracerProvider, routes: Collection[str]) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._routes = frozenset(routes)
        self._tracer = provider.get_tracer("highwater.relay")
        self._propagator = TraceContextTextMapPropagator()

    @property
    def enabled(self) -> bool:
        return True

    def wrap(self, app: Any) -> Any:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        async def uncovered(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope[_HIDDEN], receive, send)

        traced = OpenTelemetryMiddleware(
            uncovered,
            default_span_details=self._details,
            tracer_provider=self._provider,
            exclude_spans=["send", "receive"],  # else each chunk is a span
        )

        async def covered(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in UNTRACED_PATHS:
                await app(scope, receive, send)
                return
            shown = [(name, value) for name, value in scope["headers"] if name in SHOWN_HEADERS]
            await traced({**scope, "headers": shown, "query_string": b"", _HIDDEN: scope}, receive, send)

        return covered

    def _details(self, scope: Scope) -> tuple[str, dict[str, Any]]:
        # A path that no route has may be anything: it neither names a span nor stands in it.
        path = scope["path"]
        if path in self._routes:
            return f"{scope['method']} {path}", {"http.route": path}
        return scope["method"], {"url.path": "(unrouted)"}

    def call_span(self, call: Call, headers: Mapping[str, str], address: tuple[str, int]) -> Span:
        from opentelemetry.trace import SpanKind, set_span_in_context

        operation, model = call.endpoint.operation, _printable(call.model)
        span = self._tracer.start_span(
            f"{operation} {model[:MAX_NAME_CHARACTERS]}".rstrip(),
            kind=SpanKind.CLIENT,
            attributes={
                NAMES["operation"]: operation,
                NAMES["provider"]: PROVIDER,
                NAMES["request_model"]: model,
                NAMES["request_stream"]: call.streams,
                NAMES["server_address"]: address[0],
                NAMES["server_port"]: address[1],
            },
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=set_span_in_context(span))
        return _CallSpan(span, carrier)

    async def close(self) -> None:
        """Flush and stop the exporter. It has no time-out of its own that holds, so it is left behind after FLUSH_SECONDS."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def flush() -> None:
            self._provider.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=flush, name="relay-flush-traces", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), FLUSH_SECONDS)
        except TimeoutError:
            log.warning("the last traces were not sent within %g s: the collector does not answer", FLUSH_SECONDS)


class _CallSpan:
    """The CLIENT span of one call to the upstream."""

    def __init__(self, span: OtelSpan, headers: Mapping[str, str]) -> None:
        self._span = span
        self._began = time.monotonic()
        self.headers = headers

    @property
    def trace_id(self) -> str | None:
        return format(self._span.get_span_context().trace_id, "032x")

    def first_chunk(self) -> None:
        self._span.set_attribute(NAMES["first_chunk"], time.monotonic() - self._began)

    def end(self, outcome: str, *, facts: Facts | None = None, error: ApiError | None = None) -> None:
        from opentelemetry.trace import StatusCode

        attributes: dict[str, Any] = {NAMES["outcome"]: outcome}
        if facts is not None:
            attributes |= _facts(facts)
        if error is not None:
            attributes[NAMES["error_type"]] = error.code
            attributes[NAMES["status"]] = error.status
        elif outcome in FAILED:
            attributes[NAMES["error_type"]] = outcome
        self._span.set_attributes(attributes)
        if outcome in FAILED:
            self._span.set_status(StatusCode.ERROR, error.message if error else outcome)
        self._span.end()


def _facts(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {
        NAMES["response_id"]: facts.response_id,
        NAMES["response_model"]: facts.model,
        NAMES["finish_reasons"]: tuple(facts.finish_reasons) or None,
        NAMES["input_tokens"]: facts.input_tokens,
        NAMES["output_tokens"]: facts.output_tokens,
    }
    return {
        name: _printable(value) if isinstance(value, str) else value
        for name, value in found.items()
        if value is not None
    }


def _printable(text: str) -> str:
    """Text that UTF-8 can carry: JSON may hold half a surrogate pair."""
    return text[:MAX_ATTRIBUTE_CHARACTERS].encode(errors="replace").decode()


class _Seldom(logging.Handler):
    """Passes OpenTelemetry's complaints on to the relay's log, one a minute: a dead collector is one fact."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_INTERVAL_SECONDS
            log.warning("%s (more of it is not logged for %g s)", record.getMessage(), LOG_INTERVAL_SECONDS)


def _quieten() -> None:
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if not any(isinstance(handler, _Seldom) for handler in logger.handlers):
        logger.addHandler(_Seldom())
