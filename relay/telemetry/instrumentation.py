"""opentelemetry-instrumentation-asgi, which is shown each request when it is over, and tells the request's span what it saw.

The SDK's spans are made when they end (deferred.py), and their attributes are not needed before. So no attribute is computed
while a client waits for its first event. What the instrumentation does wrong is put right here, once each.

| what it does | what is done about it |
|---|---|
| `sends`: a span for each `send` and `receive` | exclude_spans |
| `success`: ends as one where the client left, and when the app returns, before the end has a name | `ServerSpan.finish` |
| `exception`: keeps the text and the stack of one, which may quote a prompt | it sees none, `ServerSpan` keeps its type |
| `query`: reads headers, path and query into attributes | it is shown a scope without them |
| `headers`: takes those that a variable names, and fails on a pattern that is none | a pattern of ours, then none |
| `durations`: end where the app returns, which a stream outlives, and at 10 s | no meter; http_metrics.py measures |

tests/relay/telemetry/test_asgi_defects.py has a test for each, by this name, that shows the defect with the installed release:
when one fails, the defect is gone, and what is done about it can go, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

if TYPE_CHECKING:
    from ..client.reply import Receive, Scope, Send

__all__ = ["Instrumentation"]

NOTHING: Final = ["(?!)"]  # an empty list would be filled from the environment

_STATUS: Final = "relay.status"


class Instrumentation(Tracer):
    """Shows requests to the instrumentation, and is the tracer that it asks for their spans, which have begun long ago."""

    def __init__(self) -> None:
        self._span: Span | None = None
        self._app = OpenTelemetryMiddleware(
            _answered,
            default_span_details=lambda _: ("", {}),  # the span has its name
            tracer=self,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["send", "receive"],
            http_capture_headers_server_request=NOTHING,
            http_capture_headers_server_response=NOTHING,
            http_capture_headers_sanitize_fields=NOTHING,
        )
        self._app.http_capture_headers_server_request = None  # or it would look for NOTHING in each request

    def show(self, scope: Scope, path: str, status: int | None, span: Span) -> None:
        """Tell `span` of a request that is over: nothing that may be a prompt or a key.

        path     where it went, by its route
        status   what it was answered with, None where it was not
        """
        self._span = span
        headers = [(name, value) for name, value in scope["headers"] if name == b"host"]
        shown = {**scope, "path": path, "query_string": b"", "headers": headers, _STATUS: status}
        showing = self._app(shown, _nothing, _nothing)
        with contextlib.suppress(StopIteration):  # it comes to its end at once: it has nothing to wait for
            showing.send(None)

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
        yield self.start_span(name)  # of `send` and `receive`, which are excluded


async def _answered(scope: Scope, _: Receive, send: Send) -> None:
    """The answer to a request that is over, as far as the instrumentation looks at it."""
    if scope[_STATUS] is not None:
        await send({"type": "http.response.start", "status": scope[_STATUS], "headers": []})


async def _nothing(*_: Any) -> Any:
    pass
