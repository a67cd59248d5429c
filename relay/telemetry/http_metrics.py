"""HTTP's own server metrics: how many requests there are, and how long each took, streams to their last byte.

Names and attributes are those of the semantic conventions (https://opentelemetry.io/docs/specs/semconv/http/http-metrics/).
What stands in an attribute is one of a few words: a method that HTTP does not know is _OTHER, a path that no route has is
left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, set_span_in_context

from ..ending import Ending
from .names import METRICS, NAMES

if TYPE_CHECKING:
    from ..reply import Scope

__all__ = ["HttpMetrics", "known_method"]

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
FAILURES: Final = 500  # and above


def known_method(method: str, other: str = "HTTP") -> str:
    return method if method in METHODS else other


class HttpMetrics:
    def __init__(self, meters: MeterProvider) -> None:
        meter = meters.get_meter("highwater.relay")
        self._active = meter.create_up_down_counter(
            METRICS["http_active"], "{request}", "Requests that are being served."
        )
        self._duration = meter.create_histogram(METRICS["http_duration"], "s", "Duration of HTTP server requests.")

    def began(self, scope: Scope) -> None:
        self._active.add(1, _asked(scope))

    def ended(
        self,
        scope: Scope,
        route: str | None,
        status: int | None,
        seconds: float,
        span: Span | None,
        ending: Ending | None,
    ) -> None:
        """`status` is what it was answered with; `ending` is how its stream ended, where it had one."""
        asked = _asked(scope)
        self._active.add(-1, asked)
        labels: dict[str, Any] = {**asked, "network.protocol.version": scope["http_version"]}
        if route is not None:
            labels[NAMES["route"]] = route
        if status is not None:
            labels[NAMES["status"]] = status
        if ending is not None and ending.failed and ending.error_type is not None:
            labels[NAMES["error_type"]] = ending.error_type
        elif status is not None and status >= FAILURES:
            labels[NAMES["error_type"]] = str(status)
        self._duration.record(seconds, labels, set_span_in_context(span) if span is not None else None)


def _asked(scope: Scope) -> dict[str, Any]:
    return {"http.request.method": known_method(scope["method"], "_OTHER"), "url.scheme": scope["scheme"]}
