"""The relay's histograms, which are exported among the SDK's metrics.

A stream's end records five values. For each of them the SDK checks the attributes, sorts and hashes them to find their series,
and asks its filter for exemplars: a fifth of all that a stream costs. Here a series is found once and kept by who records
(genai.py, http.py), and a value is one search among its bounds.

The law of this file: nothing is decided here. What is exported for the same values is what the SDK's histograms would export,
with its classes: buckets, sums, exemplars, the temporality that OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE asks for, and
OTEL_METRICS_EXEMPLAR_FILTER (tests/relay/telemetry/test_histograms.py compares them). A value must be finite and not negative.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Final

from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
    OTEL_METRICS_EXEMPLAR_FILTER,
)
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as Points
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span, TraceFlags

__all__ = ["MAX_SERIES", "Histogram", "Histograms", "Origin", "Series"]

# As in the SDK: all labels beyond so many series of one histogram share one more.
MAX_SERIES: Final = 2_000
OVERFLOW: Final = {"otel.metric.overflow": True}

# What an exemplar has beside its value: nanoseconds since the epoch, the span's id and the trace's.
Origin = tuple[int, int | None, int | None]

_OF_DELTA: Final = frozenset({"DELTA", "LOWMEMORY"})


class Series:
    """The values of one histogram with one set of labels. Recorded on the loop, collected in the exporter's thread."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_labels", "_lock", "_max", "_min", "_since", "_sum")

    def __init__(self, labels: Mapping[str, Any], bounds: tuple[float, ...], since: int) -> None:
        self._labels = labels
        self._bounds = bounds
        self._lock = Lock()
        self._since = since
        self._begin()

    def _begin(self) -> None:
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum: float = 0
        self._min, self._max = math.inf, -math.inf
        self._exemplars: dict[int, tuple[float, Origin]] = {}  # the last of each bucket since the last export

    def record(self, value: float, exemplar: Origin | None = None) -> None:
        """Add a value, and where it has an `exemplar` keep that."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value
            if value < self._min:
                self._min = value
            if value > self._max:
                self._max = value
            if exemplar is not None:
                self._exemplars[place] = (value, exemplar)

    def collect(self, now: int, *, delta: bool) -> HistogramDataPoint | None:
        """What is exported at `now`; None where that is nothing. `delta`: what has come since the last time."""
        with self._lock:
            counts = tuple(self._counts)
            if not any(counts):
                self._since = now if delta else self._since
                return None
            point = HistogramDataPoint(
                attributes=self._labels,
                exemplars=[self._exemplar(*self._exemplars[place]) for place in sorted(self._exemplars)],
                start_time_unix_nano=self._since,
                time_unix_nano=now,
                count=sum(counts),
                sum=self._sum,
                bucket_counts=counts,
                explicit_bounds=self._bounds,
                min=self._min,
                max=self._max,
            )
            self._exemplars = {}
            if delta:
                self._since = now
                self._begin()
        return point

    def _exemplar(self, value: float, origin: Origin) -> Exemplar:
        # First the attributes that are not among the labels: none.
        return Exemplar({} if self._labels else None, value, *origin)


class Histogram:
    """One instrument and its series. `bounds` are the upper ones of its buckets, without the last, which has none."""

    def __init__(self, name: str, unit: str, description: str, bounds: Sequence[float]) -> None:
        self.name, self.unit, self.description = name, unit, description
        self._bounds = tuple(bounds)
        self._series: dict[Hashable, Series] = {}
        self._collected_at: int | None = None  # where only what is new is exported

    def series(self, labels: Mapping[str, Any]) -> Series:
        """The series with these labels, whose values are strings and numbers, for the caller to keep."""
        key = frozenset(labels.items())
        if key not in self._series and len(self._series) >= MAX_SERIES:
            labels, key = OVERFLOW, frozenset(OVERFLOW.items())
        found = self._series.get(key)
        if found is None:
            since = self._collected_at or time.time_ns()
            found = self._series[key] = Series(labels, self._bounds, since)
        return found

    def collect(self, now: int, *, delta: bool) -> Metric | None:
        if delta:
            self._collected_at = now
        points = [series.collect(now, delta=delta) for series in list(self._series.values())]
        found = [point for point in points if point is not None]
        if not found:
            return None
        temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        return Metric(self.name, self.description, self.unit, Points(found, temporality))


class Histograms:
    """All histograms of one relay, under one instrumentation scope. `environment` has the OTEL_* variables."""

    def __init__(self, scope: str, environment: Mapping[str, str]) -> None:
        self._scope = InstrumentationScope(scope, "")
        preference = environment.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "")
        self._delta = preference.strip().upper() in _OF_DELTA
        self._exemplars = environment.get(OTEL_METRICS_EXEMPLAR_FILTER, "trace_based")
        self._all: list[Histogram] = []

    def add(self, name: str, unit: str, description: str, bounds: Sequence[float]) -> Histogram:
        histogram = Histogram(name, unit, description, bounds)
        self._all.append(histogram)
        return histogram

    def origin(self, span: Span) -> Origin | None:
        """The exemplar of values that are recorded now, under `span`; None where they have none."""
        context = span.get_span_context()
        if (
            context.trace_flags & TraceFlags.SAMPLED
            if self._exemplars == "trace_based"
            else self._exemplars == "always_on"
        ):
            known = context.is_valid
            return time.time_ns(), context.span_id if known else None, context.trace_id if known else None
        return None

    def among(self, data: MetricsData) -> MetricsData:
        """What is to be exported: `data`, of the SDK's instruments, and the histograms."""
        now = time.time_ns()
        metrics = [found for each in self._all if (found := each.collect(now, delta=self._delta)) is not None]
        if not metrics:
            return data
        first, *others = data.resource_metrics
        scopes = list(first.scope_metrics)
        for number, scope in enumerate(scopes):
            if scope.scope.name == self._scope.name:
                scopes[number] = replace(scope, metrics=[*scope.metrics, *metrics])
                break
        else:
            scopes.append(ScopeMetrics(self._scope, metrics, ""))
        return MetricsData([replace(first, scope_metrics=scopes), *others])
