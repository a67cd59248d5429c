"""HTTP's server metrics: the number of active requests, and their durations; a stream lasts to its last byte.

Names and attributes are those of the semantic conventions (https://opentelemetry.io/docs/specs/semconv/http/http-metrics/).
Attributes have few values: an unknown method is _OTHER, and a path without a route has no http.route.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span, set_span_in_context

from ..stream.ending import Ending
from .names import METRICS, NAMES

if TYPE_CHECKING:
    from ..client.reply import Scope

__all__ = ["HttpMetrics", "known_method"]

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
FAILURES: Final = 500  # and above


def known_method(method: str, other: str = "HTTP") -> str:
    return method if method in METHODS else other


class HttpMetrics:
    """The two instruments, for all requests of the relay."""

    def __init__(self, meters: MeterProvider) -> None:
        meter = meters.get_meter("highwater.relay")
        # An observable counter, read at each export: two `add` calls of the SDK for each request would cost more than the
        # record of its duration.
        self._active: Counter[tuple[str, str]] = Counter()
        meter.create_observable_up_down_counter(
            METRICS["http_active"], [self._look], "{request}", "Requests that are being served."
        )
        self._duration = meter.create_histogram(METRICS["http_duration"], "s", "Duration of HTTP server requests.")

    def began(self, scope: Scope) -> None:
        """Count a request as active, until `ended`."""
        self._active[_key(scope)] += 1

    def _look(self, _: CallbackOptions) -> Iterator[Observation]:
        for key, active in list(self._active.items()):  # in the exporter's thread
            yield Observation(active, _labels(key))

    def ended(
        self,
        scope: Scope,
        route: str | None,
        status: int | None,
        seconds: float,
        span: Span,
        ending: Ending | None,
    ) -> None:
        """Record the end of a request.

        seconds   from the request's arrival to the last byte of its response
        status    of the response; None where none was started
        span      the request's SERVER span, for the exemplar
        ending    the facts of its stream's end; None where it had no stream
        """
        key = _key(scope)
        self._active[key] -= 1
        labels = {**_labels(key), "network.protocol.version": scope["http_version"]}
        if route is not None:
            labels[NAMES["route"]] = route
        if status is not None:
            labels[NAMES["status"]] = status
        if ending is not None and ending.failed and ending.error_type is not None:
            labels[NAMES["error_type"]] = ending.error_type
        elif status is not None and status >= FAILURES:
            labels[NAMES["error_type"]] = str(status)
        self._duration.record(seconds, labels, set_span_in_context(span))


def _key(scope: Scope) -> tuple[str, str]:
    """The request's method and scheme, which label both metrics."""
    return known_method(scope["method"], "_OTHER"), scope["scheme"]


def _labels(key: tuple[str, str]) -> dict[str, Any]:
    return {"http.request.method": key[0], "url.scheme": key[1]}
