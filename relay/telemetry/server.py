"""The SERVER span of a request, by opentelemetry-instrumentation-asgi. What that does wrong is put right here, once each.

It sees a request as far as the framework does: it starts the span, names it, and tells it how a short answer went. A stream is
served when the framework and it have returned (outside.py), and its span ends with the stream: `Request`.

| what it does | what is done about it |
|---|---|
| `sends`: a span for each `send` and `receive` | exclude_spans |
| `success`: ends as one where the client left, and when the app returns, before the end has a name | `ServerSpan.finish` |
| `exception`: keeps the text and the stack of one, which may quote a prompt | `ServerSpan` keeps its type |
| `query`: reads headers, path and query into attributes | it is shown a scope without them |
| `headers`: takes those that a variable names, and fails on a pattern that is none | patterns that match nothing |
| `durations`: end where the app returns, which a stream outlives, and at 10 s | no meter; http_metrics.py measures |

tests/relay/telemetry/test_asgi_defects.py has a test for each, by this name, that shows the defect with the installed release:
when one fails, the defect is gone, and what is done about it can go, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from ..ending import Ending
from .http_metrics import FAILURES, HttpMetrics, known_method
from .names import NAMES
from .turns import Step, Turns

if TYPE_CHECKING:
    from ..reply import Receive, Scope, Send

__all__ = ["Request", "Requests", "ServerSpan", "current_server_span", "traced_app"]

UNTRACED_PATHS: Final = frozenset({"/healthz", "/readyz"})
SHOWN_HEADERS: Final = frozenset({b"host", b"content-length", b"traceparent", b"tracestate"})
UNROUTED: Final = "(unrouted)"
NOTHING: Final = ["(?!)"]  # an empty list would be filled from the environment

_HIDDEN: Final = "relay.scope"
_REQUEST: Final = "relay.request"


class ServerSpan(Span):
    """A span for the instrumentation to use: its `end` does nothing; `finish` ends it, with what was told since."""

    __slots__ = ("_span", "ending", "kind")

    def __init__(self, span: Span, kind: SpanKind) -> None:
        self._span = span
        self.kind = kind  # the instrumentation asks
        self.ending: Ending | None = None

    def told(self, ending: Ending) -> None:
        """How the stream that the request is about ended. The last one told counts."""
        self.ending = ending

    def finish(self, status: int | None, now: int) -> None:
        """The request was over at `now`; `status` is what it was answered with, None where it was not."""
        span, ending = self._span, self.ending
        if span.is_recording():
            if status is not None:
                span.set_attribute(NAMES["status"], status)
            if status is not None and status >= FAILURES:
                span.set_attribute(NAMES["error_type"], str(status))
                span.set_status(StatusCode.ERROR)
            if ending is not None:
                span.set_attributes(_shown(ending))
                if ending.failed:
                    span.set_status(StatusCode.ERROR)
        span.end(now)

    def end(self, end_time: int | None = None) -> None:
        pass

    def get_span_context(self) -> SpanContext:
        return self._span.get_span_context()

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
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
        return ServerSpan(self._tracer.start_span(name, context, kind, attributes, *arguments, **options), kind)

    @contextmanager
    def start_as_current_span(self, name: str, *arguments: Any, **options: Any) -> Iterator[Span]:  # type: ignore[override]
        # Of `send` and `receive`, which are excluded.
        with self._tracer.start_as_current_span(name, *arguments, **options) as span:
            yield span


class Request:
    """What is seen of one request, from its first byte to its last one."""

    __slots__ = ("_began", "_metrics", "_route", "_scope", "_turns", "span")

    def __init__(self, scope: Scope, route: str | None, metrics: HttpMetrics | None, turns: Turns) -> None:
        self._turns = turns
        self._scope = scope
        self._route = route
        self._metrics = metrics
        self._began = time.monotonic()
        self.span: ServerSpan | None = None
        if metrics is not None:
            metrics.began(scope)

    def shown(self, scope: Scope) -> Scope:
        """What the instrumentation is shown of the request: nothing that may be a prompt or a key."""
        headers = [(name, value) for name, value in scope["headers"] if name in SHOWN_HEADERS]
        return {**scope, "headers": headers, "query_string": b"", _HIDDEN: scope}

    def details(self) -> tuple[str, dict[str, Any]]:
        """The span's name and attributes. A path that no route has may be anything: it does not stand in a span."""
        method = known_method(self._scope["method"])
        if self._route is None:
            return method, {"url.path": UNROUTED}
        return f"{method} {self._route}", {NAMES["route"]: self._route, "url.path": self._route}

    def starts(self, span: Span) -> None:
        if isinstance(span, ServerSpan):
            self.span = span
            _serving.set(span)

    def over(self, status: int | None) -> None:
        """It is over; `status` is what it was answered with."""
        span, self.span = self.span, None
        scope, self._scope = self._scope, {}  # which knows the request
        _serving.set(None)
        metrics, seconds, now = self._metrics, time.monotonic() - self._began, time.time_ns()
        steps: list[Step] = []
        if metrics is not None:
            ending = span.ending if span else None
            steps.append(lambda: metrics.ended(scope, self._route, status, seconds, span, ending))
        if span is not None:
            steps.append(lambda: span.finish(status, now))
        self._turns.take(*steps)


class Requests:
    """Sees the requests of an app. `routes` are the paths that may name a span; a part of one in braces stands for anything."""

    def __init__(self, routes: Collection[str], metrics: HttpMetrics | None, turns: Turns) -> None:
        self._turns = turns
        self._exact = frozenset(route for route in routes if "{" not in route)
        self._patterns = [
            (re.compile("[^/]+".join(map(re.escape, re.split(r"{[^}]*}", route)))), route)
            for route in routes
            if "{" in route
        ]
        self._metrics = metrics

    def seen(self, scope: Scope) -> Request | None:
        """None for a request that nobody wants to see."""
        path = scope["path"]
        if path in UNTRACED_PATHS:
            return None
        request = scope[_REQUEST] = Request(scope, self._route(path), self._metrics, self._turns)
        return request

    def _route(self, path: str) -> str | None:
        if path in self._exact:
            return path
        return next((route for pattern, route in self._patterns if pattern.fullmatch(path)), None)


# Of the request that a task serves.
_serving: Final[ContextVar[ServerSpan | None]] = ContextVar("relay.server_span", default=None)


def current_server_span() -> ServerSpan | None:
    """Of the request that this task serves; None where it is not traced."""
    return _serving.get()


def traced_app(app: Any, tracer: Tracer) -> Any:
    """`app`, with a span of `tracer` for each request that is seen."""

    async def uncovered(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope[_HIDDEN], receive, send)

    traced = OpenTelemetryMiddleware(
        uncovered,
        default_span_details=lambda scope: scope[_REQUEST].details(),
        server_request_hook=lambda span, scope: scope[_REQUEST].starts(span),
        tracer=_Tracer(tracer),
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["send", "receive"],
        http_capture_headers_server_request=NOTHING,
        http_capture_headers_server_response=NOTHING,
        http_capture_headers_sanitize_fields=NOTHING,
    )

    async def covered(scope: Scope, receive: Receive, send: Send) -> None:
        request: Request | None = scope.get(_REQUEST)
        if request is None:
            await app(scope, receive, send)
        else:
            await traced(request.shown(scope), receive, send)

    return covered


def _shown(ending: Ending) -> dict[str, Any]:
    """How it ended; what it did stands on the CLIENT span. What only topics know (they have none) stands here."""
    found = {
        "outcome": ending.outcome,
        "error_type": ending.error_type,
        "dropped_events": ending.dropped_events or None,
    }
    return {NAMES[field]: value for field, value in found.items() if value is not None}
