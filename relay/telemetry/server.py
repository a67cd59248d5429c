"""The SERVER span of a request, by opentelemetry-instrumentation-asgi. What that does wrong is put right here, once each.

| what it does | what is done about it |
|---|---|
| `sends`: a span for each `send` and `receive` | exclude_spans |
| `chunks`: looks for a content-length in every chunk | it is shown the first message and the last |
| `success`: ends as one where the client left, and at the last byte, when the end has no name yet | `ServerSpan.finish` |
| `exception`: keeps the text and the stack of one, which may quote a prompt | `ServerSpan` keeps its type |
| `query`: reads headers, path and query into attributes | it is shown a scope without them |
| `headers`: takes those that a variable names, and fails on a pattern that is none | patterns that match nothing |
| `buckets`: durations end at 10 s | a View, in metrics.py |
| `sizes`: one variable for the response sizes of all requests | a View that drops them, in metrics.py |

tests/relay/telemetry/test_asgi_defects.py has a test for each, by this name, that shows the defect with the installed release:
when one fails, the defect is gone, and what is done about it can go, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from ..ending import Ending
from .names import NAMES

if TYPE_CHECKING:
    from ..reply import Message, Receive, Scope, Send

__all__ = ["ServerSpan", "current_server_span", "traced_app"]

UNTRACED_PATHS: Final = frozenset({"/healthz", "/readyz"})
SHOWN_HEADERS: Final = frozenset({b"host", b"content-length", b"traceparent", b"tracestate"})
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
UNROUTED: Final = "(unrouted)"
NOTHING: Final = ["(?!)"]  # an empty list would be filled from the environment

_HIDDEN: Final = "relay.scope"
_SEND: Final = "relay.send"
_SPAN: Final = "relay.span"


class ServerSpan(Span):
    """The SDK's span for the instrumentation to use: `end` only takes the time; `finish` ends it, with what was told since."""

    def __init__(self, span: Span, kind: SpanKind, given: Mapping[str, AttributeValue]) -> None:
        self._span = span
        self.kind = kind  # the instrumentation asks
        self._given = given
        self._ended_at: int | None = None
        self._ending: Ending | None = None

    def told(self, ending: Ending) -> None:
        """How the stream that the request is about ended. The last one told counts."""
        self._ending = ending

    def finish(self) -> None:
        if self._ending is not None and self._span.is_recording():
            self._span.set_attributes(_shown(self._ending))
            if self._ending.failed:
                self._span.set_status(StatusCode.ERROR)
        self._span.end(self._ended_at)

    def end(self, end_time: int | None = None) -> None:
        self._ended_at = end_time or time.time_ns()

    def get_span_context(self) -> SpanContext:
        return self._span.get_span_context()

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if self._given.get(key) != value:  # the instrumentation sets all that the span began with once more
            self._span.set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self._span.add_event(name, attributes, timestamp)

    def update_name(self, name: str) -> None:
        self._span.update_name(name)

    def is_recording(self) -> bool:
        return self._span.is_recording()

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        # The description is an exception's text.
        self._span.set_status(status.status_code if isinstance(status, Status) else status)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._span.add_event("exception", {"exception.type": type(exception).__qualname__}, timestamp)


class _Tracer(Tracer):
    """Starts a `ServerSpan` where the instrumentation asks for a span."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(
        self,
        name: str,
        context: Any = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Span:
        span = self._tracer.start_span(name, context, kind, attributes, *arguments, **options)
        return ServerSpan(span, kind, attributes or {})

    @contextmanager
    def start_as_current_span(self, name: str, *arguments: Any, **options: Any) -> Iterator[Span]:  # type: ignore[override]
        # Of `send` and `receive`, which are excluded.
        with self._tracer.start_as_current_span(name, *arguments, **options) as span:
            yield span


def current_server_span() -> ServerSpan | None:
    """Of the request that this task serves; None where it is not traced."""
    span = trace.get_current_span()
    return span if isinstance(span, ServerSpan) else None


def traced_app(app: Any, tracer: Tracer, meters: MeterProvider | None, routes: Collection[str]) -> Any:
    """`app` with a SERVER span for each request but those of UNTRACED_PATHS. Paths that are no route name nothing."""
    names = _RouteNames(routes)

    async def uncovered(scope: Scope, receive: Receive, seen: Send) -> None:
        unseen = scope[_SEND]

        def send(message: Message) -> Awaitable[None]:
            # Of a stream's chunks the instrumentation needs none but the last.
            return unseen(message) if message.get("more_body") else seen(message)

        await app(scope[_HIDDEN], receive, send)

    traced = OpenTelemetryMiddleware(
        uncovered,
        default_span_details=names.details,
        server_request_hook=_keep,
        tracer=_Tracer(tracer),
        meter_provider=meters,
        exclude_spans=["send", "receive"],
        http_capture_headers_server_request=NOTHING,
        http_capture_headers_server_response=NOTHING,
        http_capture_headers_sanitize_fields=NOTHING,
    )

    async def covered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED_PATHS:
            await app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name in SHOWN_HEADERS]
        shown = {**scope, "headers": headers, "query_string": b"", _HIDDEN: scope, _SEND: send}
        try:
            await traced(shown, receive, send)
        finally:
            span = shown.get(_SPAN)
            if span is not None:
                span.finish()

    return covered


def _keep(span: Span, scope: dict[str, Any]) -> None:
    scope[_SPAN] = span


class _RouteNames:
    def __init__(self, routes: Collection[str]) -> None:
        self._exact = frozenset(route for route in routes if "{" not in route)
        self._patterns = [
            (re.compile("[^/]+".join(map(re.escape, re.split(r"{[^}]*}", route)))), route)
            for route in routes
            if "{" in route
        ]

    def details(self, scope: Scope) -> tuple[str, dict[str, Any]]:
        """A span's name and attributes. A path that no route has may be anything: it neither names a span nor stands in it."""
        method = scope["method"] if scope["method"] in METHODS else "HTTP"
        route = self._route(scope["path"])
        if route is None:
            return method, {"url.path": UNROUTED}
        return f"{method} {route}", {NAMES["route"]: route, "url.path": route}

    def _route(self, path: str) -> str | None:
        if path in self._exact:
            return path
        return next((route for pattern, route in self._patterns if pattern.fullmatch(path)), None)


def _shown(ending: Ending) -> dict[str, Any]:
    """How it ended; what it did stands on the CLIENT span. What only topics know (they have none) stands here."""
    found = {
        "outcome": ending.outcome,
        "error_type": ending.error_type,
        "dropped_events": ending.dropped_events or None,
    }
    return {NAMES[field]: value for field, value in found.items() if value is not None}
