"""The SERVER span of a request, from its arrival to the last byte of its response.

A stream is served after the framework and its middlewares have returned (client/outside.py), and the span ends with the stream.
Only then does opentelemetry-instrumentation-asgi set the span's other attributes (instrumentation.py): the client need not wait
for that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.instrumentation.asgi import asgi_getter
from opentelemetry.propagate import extract
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from ..stream.ending import Ending
from .instrumentation import Instrumentation
from .loop_turns import LoopTurns
from .metrics.http import HttpMetrics, known_method
from .names import NAMES

if TYPE_CHECKING:
    from ..client.reply import Receive, Scope, Send

__all__ = ["Request", "Requests", "ServerSpan", "current_server_span", "traced_app"]

UNTRACED_PATHS: Final = frozenset({"/healthz", "/readyz"})
TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})
UNROUTED: Final = "(unrouted)"

_REQUEST: Final = "relay.request"


class ServerSpan(Span):
    """A request's span. Only `finish` ends it: the `end` that the instrumentation calls does nothing."""

    __slots__ = ("_span", "ending")

    kind = SpanKind.SERVER  # the instrumentation reads it

    def __init__(self, span: Span) -> None:
        self._span = span
        self.ending: Ending | None = None

    def stream_ended(self, ending: Ending) -> None:
        """Keep the facts of the end of the request's stream, for `finish`. The last call counts."""
        self.ending = ending

    def finish(self, now: int) -> None:
        """End the span at `now`, nanoseconds since the epoch."""
        span, ending = self._span, self.ending
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
        # Without the description, which may be an exception's message.
        self._span.set_status(status.status_code if isinstance(status, Status) else status)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._span.add_event("exception", {"exception.type": type(exception).__qualname__}, timestamp)


class Request:
    """The span and the metrics of one request, from its arrival to the last byte of its response (client.outside.Seen).

    route   None for a path that no route has: a caller chooses it, so it is not in the span
    """

    __slots__ = ("_began", "_requests", "_route", "_scope", "span")

    def __init__(self, scope: Scope, route: str | None, requests: Requests) -> None:
        self._requests = requests
        self._scope = scope
        self._route = route
        self._began = time.monotonic()
        name = known_method(scope["method"])
        # The attributes that a sampler may use; the others are set at the end.
        attributes = {"http.request.method": known_method(scope["method"], "_OTHER"), "url.path": route or UNROUTED}
        if route is not None:
            name = f"{name} {route}"
            attributes[NAMES["route"]] = route
        self.span = ServerSpan(requests.tracer.start_span(name, _caller(scope), SpanKind.SERVER, attributes))
        _serving.set(self.span)
        if requests.metrics is not None:
            requests.metrics.began(scope)

    def over(self, status: int | None) -> None:
        """The request has ended. `status` is that of its response, None where none was started."""
        scope, self._scope = self._scope, {}  # the scope refers to this object: breaks the cycle
        _serving.set(None)
        requests, route, span = self._requests, self._route, self.span
        metrics, seconds, now = requests.metrics, time.monotonic() - self._began, time.time_ns()

        def tell() -> None:
            if metrics is not None:
                metrics.ended(scope, route, status, seconds, span, span.ending)
            if span.is_recording():
                requests.instrumentation.show(scope, route or UNROUTED, status, span)
                span.finish(now)

        if metrics is not None or span.is_recording():
            requests.turns.take(tell)


class Requests:
    """Makes a Request, with a span of `tracer`, for each request of an app.

    routes   the path templates that may name a span, with parameters in braces
    """

    def __init__(self, routes: Collection[str], tracer: Tracer, metrics: HttpMetrics | None, turns: LoopTurns) -> None:
        self.tracer = tracer
        self.metrics = metrics
        self.turns = turns
        self.instrumentation = Instrumentation()
        self._exact = frozenset(route for route in routes if "{" not in route)
        self._patterns = [
            (re.compile("[^/]+".join(map(re.escape, re.split(r"{[^}]*}", route)))), route)
            for route in routes
            if "{" in route
        ]

    def seen(self, scope: Scope) -> Request | None:
        """The observer of the request in `scope`; None for a probe."""
        path = scope["path"]
        if path in UNTRACED_PATHS:
            return None
        request = scope[_REQUEST] = Request(scope, self._route(path), self)
        return request

    def _route(self, path: str) -> str | None:
        if path in self._exact:
            return path
        return next((route for pattern, route in self._patterns if pattern.fullmatch(path)), None)


# The span of the request that the current task serves.
_serving: Final[ContextVar[ServerSpan | None]] = ContextVar("relay.server_span", default=None)


def current_server_span() -> ServerSpan | None:
    """The span of the request that this task serves; None where the request is not traced."""
    return _serving.get()


def traced_app(app: Any) -> Any:
    """`app`, in which the request's span is the current one, and gets the exception that the app raises."""

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        request: Request | None = scope.get(_REQUEST)
        if request is None:
            await app(scope, receive, send)
            return
        token = attach(set_span_in_context(request.span, Context()))
        try:
            await app(scope, receive, send)
        except Exception as error:
            request.span.record_exception(error)
            request.span.set_status(StatusCode.ERROR)
            raise
        finally:
            detach(token)

    return traced


def _caller(scope: Scope) -> Context:
    """The trace context in the request's headers; an empty one where it has none."""
    headers = [(name, value) for name, value in scope["headers"] if name in TRACE_HEADERS]
    return extract({"headers": headers}, Context(), asgi_getter) if headers else Context()


def _shown(ending: Ending) -> dict[str, Any]:
    """The attributes of a stream's end on the SERVER span; the CLIENT span has the others. Subscriptions have no CLIENT span,
    and only they drop events."""
    facts = {
        "outcome": ending.outcome,
        "error_type": ending.error_type,
        "dropped_events": ending.dropped_events or None,
    }
    return {NAMES[field]: value for field, value in facts.items() if value is not None}
