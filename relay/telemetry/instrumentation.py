"""The attributes of a request's SERVER span, by opentelemetry-instrumentation-asgi, set after the request's end.

The SDK's spans are made when they end (deferred.py), and their attributes are not needed before. So no attribute is computed
while a client waits for its first event. And the instrumentation is run once for each kind of request: it says the same of all
requests that differ in their client's address alone. Each defect of the instrumentation is worked around in one place:

| defect | work-around |
|---|---|
| `sends`: makes a span for each `send` and `receive` | exclude_spans |
| `success`: a client that left looks like a success, and the span ends before the outcome is known | `ServerSpan.finish` |
| `exception`: records an exception's message and stack, which may quote a prompt | it sees none, `ServerSpan` has the type |
| `query`: reads headers, path and query string into attributes | it gets a scope without them |
| `headers`: records headers that a variable names, and fails on an invalid pattern | a pattern that matches none, then None |
| `durations`: end where the app returns, before its stream ends; buckets end at 10 s | no meter, but metrics/http.py |

tests/relay/telemetry/test_asgi_defects.py has a test for each, by this name, that shows the defect in the installed release:
when one fails, the defect is gone, and its work-around can go, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

if TYPE_CHECKING:
    from ..client.reply import Receive, Scope, Send

__all__ = ["Instrumentation"]

NOTHING: Final = ["(?!)"]  # a pattern that matches no header; an empty list would be filled from the environment

_STATUS: Final = "relay.status"

# Kinds of requests that are remembered, and the size of the texts that a client chooses in each.
MAX_KINDS: Final = 256
MAX_KIND_BYTES: Final = 256
# What the instrumentation is told in place of a client's address and port.
CLIENT: Final = ("(client)", -1)


class _Told(NonRecordingSpan):
    """Takes what the instrumentation tells of a kind of requests.

    client   the names of the attributes that are the client's address (0) or port (1)
    """

    kind = SpanKind.SERVER  # the instrumentation reads it

    def __init__(self) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self.attributes: dict[str, AttributeValue] = {}
        self.client: list[tuple[str, int]] = []
        self.status: Status | StatusCode | None = None

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self.attributes.update(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self.attributes[key] = value

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self.status = status

    def split(self) -> None:
        """Take the client's attributes out of `attributes`."""
        self.client = [(name, CLIENT.index(value)) for name, value in self.attributes.items() if value in CLIENT]
        for name, _ in self.client:
            del self.attributes[name]


class Instrumentation(Tracer):
    """Runs the instrumentation on finished requests, and is its tracer: its span keeps what the instrumentation tells."""

    def __init__(self) -> None:
        self._span: Span | None = None
        self._kinds: dict[tuple[Any, ...], _Told] = {}
        self._app = OpenTelemetryMiddleware(
            _answered,
            default_span_details=lambda _: ("", {}),  # the span has its name already
            tracer=self,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["send", "receive"],
            http_capture_headers_server_request=NOTHING,
            http_capture_headers_server_response=NOTHING,
            http_capture_headers_sanitize_fields=NOTHING,
        )
        self._app.http_capture_headers_server_request = None  # or each request would be matched against NOTHING

    def show(self, scope: Scope, path: str, status: int | None, span: Span) -> None:
        """Set the attributes of a finished request on its `span`, without any text that may be a prompt or a key.

        path     the path of the request's route, not the one that the client sent
        status   of the response; None where none was started
        """
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        client = scope.get("client")
        server = tuple(scope.get("server") or ())
        kind = (scope["method"], scope["scheme"], scope["http_version"], server, host, path, status, client is None)
        told = self._kinds.get(kind)
        if told is None:
            told = self._ask(scope, path, status, host)
            if len(scope["method"]) + len(host or b"") <= MAX_KIND_BYTES:
                if len(self._kinds) >= MAX_KINDS:
                    self._kinds.clear()
                self._kinds[kind] = told
        span.set_attributes(told.attributes)
        if client is not None:
            span.set_attributes({name: client[which] for name, which in told.client if client[which]})
        if told.status is not None:
            span.set_status(told.status)

    def _ask(self, scope: Scope, path: str, status: int | None, host: bytes | None) -> _Told:
        """Run the instrumentation for a request."""
        self._span = told = _Told()
        redacted = {
            **scope,
            "path": path,
            "query_string": b"",
            "headers": [] if host is None else [(b"host", host)],
            "client": None if scope.get("client") is None else CLIENT,
            _STATUS: status,
        }
        showing = self._app(redacted, _nothing, _nothing)
        with contextlib.suppress(StopIteration):  # the coroutine ends in this one step, as nothing in it waits
            showing.send(None)
        told.split()
        return told

    def start_span(
        self,
        name: str,
        context: Any = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Span:
        span, self._span = self._span, None
        assert span is not None, "one span for each request that is shown"
        span.set_attributes(attributes or {})
        return span

    @contextlib.contextmanager
    def start_as_current_span(self, name: str, *arguments: Any, **options: Any) -> Iterator[Span]:  # type: ignore[override]
        yield self.start_span(name)  # never called: the spans of `send` and `receive` are excluded


async def _answered(scope: Scope, _: Receive, send: Send) -> None:
    """The app that the instrumentation wraps: starts a response with the status of the finished request."""
    if scope[_STATUS] is not None:
        await send({"type": "http.response.start", "status": scope[_STATUS], "headers": []})


async def _nothing(*_: Any) -> Any:
    pass
