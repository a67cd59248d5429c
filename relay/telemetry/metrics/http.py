"""HTTP's server metrics: the number of active requests, and their durations; a stream lasts to its last byte.

Names and attributes are those of the semantic conventions (https://opentelemetry.io/docs/specs/semconv/http/http-metrics/).
Attributes have few values: an unknown method is _OTHER, and a path without a route has no http.route.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span

from ...stream.ending import Ending
from ..names import METRICS, NAMES
from .genai import BUCKETS
from .histograms import Histograms, Series

if TYPE_CHECKING:
    from ...client.reply import Scope

__all__ = ["HttpMetrics", "known_method"]

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
FAILURES: Final = 500  # and above


def known_method(method: str, other: str = "HTTP") -> str:
    return method if method in METHODS else other


class HttpMetrics:
    """The two instruments, for all requests of the relay."""

    def __init__(self, meters: MeterProvider, histograms: Histograms) -> None:
        meter = meters.get_meter("highwater.relay")
        # An observable counter, read at each export: two `add` calls of the SDK for each request would cost more than the
        # record of its duration.
        self._active: Counter[tuple[str, str]] = Counter()
        meter.create_observable_up_down_counter(
            METRICS["http_active"], [self._look], "{request}", "Requests that are being served."
        )
        self._duration = histograms.add(
            METRICS["http_duration"], "s", "Duration of HTTP server requests.", BUCKETS["http_duration"]
        )
        self._histograms = histograms
        self._series: dict[tuple[str, str, str, str | None, int | None, str | None], Series] = {}

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
        error_type = None
        if ending is not None and ending.failed and ending.error_type is not None:
            error_type = ending.error_type
        elif status is not None and status >= FAILURES:
            error_type = str(status)
        kind = (*key, scope["http_version"], route, status, error_type)
        series = self._series.get(kind)
        if series is None:
            labels = {
                **_labels(key),
                "network.protocol.version": scope["http_version"],
                NAMES["route"]: route,
                NAMES["status"]: status,
                NAMES["error_type"]: error_type,
            }
            series = self._duration.series({name: value for name, value in labels.items() if value is not None})
            self._series[kind] = series
        series.record(seconds, self._histograms.origin(span))


def _key(scope: Scope) -> tuple[str, str]:
    """The request's method and scheme, which label both metrics."""
    return known_method(scope["method"], "_OTHER"), scope["scheme"]


def _labels(key: tuple[str, str]) -> dict[str, Any]:
    return {"http.request.method": key[0], "url.scheme": key[1]}
