"""The relay's histograms export what the SDK's would, for the same values: both are given the same, and compared."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram as Points
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, MetricsData
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, TraceFlags, set_span_in_context

from relay.telemetry.metrics.histograms import MAX_SERIES, Histogram, Histograms

BOUNDS = (0.01, 0.1, 1.0, 10.0)
SCOPE = "relay"
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
FILTER = "OTEL_METRICS_EXEMPLAR_FILTER"
LABELS: tuple[dict[str, Any], ...] = ({}, {"model": "m"}, {"model": "m", "status": 200}, {"model": "n", "status": 200})


def span(number: int, *, sampled: bool = True) -> Span:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(number, number + 1, is_remote=False, trace_flags=flags))


class Both:
    """One histogram of the SDK's and one of the relay's, with the same settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        # What the exporter chooses by the environment, as the periodic reader asks it.
        exporter = OTLPMetricExporter()
        self.reader = InMemoryMetricReader(preferred_temporality=exporter._preferred_temporality)
        exporter.shutdown()
        view = View(instrument_name="theirs", aggregation=ExplicitBucketHistogramAggregation(BOUNDS))
        meter = MeterProvider([self.reader], views=[view], shutdown_on_exit=False).get_meter(SCOPE)
        meter.create_observable_gauge("gauge", [lambda _: [Observation(1)]])  # so that there is always something
        self.theirs = meter.create_histogram("theirs", "s", "seconds")
        self.histograms = Histograms(SCOPE, environment)
        self.ours = self.histograms.add("ours", "s", "seconds", BOUNDS)

    def record(self, value: float, labels: dict[str, Any], of: Span) -> None:
        self.theirs.record(value, labels, set_span_in_context(of))
        self.ours.series(labels).record(value, self.histograms.origin(of))

    def exported(self) -> tuple[list[Metric], list[Metric]]:
        data = self.reader.get_metrics_data()
        assert isinstance(data, MetricsData)
        (of,) = self.histograms.among(data).resource_metrics
        (by,) = of.scope_metrics
        assert by.scope.name == SCOPE
        return [metric for metric in by.metrics if metric.name == "theirs"], [
            replace(metric, name="theirs") for metric in by.metrics if metric.name == "ours"
        ]


def timeless(metrics: list[Metric]) -> list[tuple[Any, ...]]:
    """The metrics without their times, which are two readings of the clock, and with points in one order."""
    return [
        (
            replace(metric, data=Points([], metric.data.aggregation_temporality)),
            sorted(map(without_times, points(metric)), key=lambda point: str(sorted((point.attributes or {}).items()))),
        )
        for metric in metrics
        if isinstance(metric.data, Points)
    ]


def without_times(point: HistogramDataPoint) -> HistogramDataPoint:
    exemplars = [replace(exemplar, time_unix_nano=0) for exemplar in point.exemplars]
    return replace(point, start_time_unix_nano=0, time_unix_nano=0, exemplars=exemplars)


def points(metric: Metric) -> Iterator[HistogramDataPoint]:
    assert isinstance(metric.data, Points)
    yield from metric.data.data_points


@pytest.mark.parametrize("exemplars", [None, "trace_based", "always_on", "always_off"])
@pytest.mark.parametrize("temporality", [None, "cumulative", "delta", "LowMemory"])
def test_the_same_values_are_exported_as_the_sdk_exports_them(
    monkeypatch: pytest.MonkeyPatch, temporality: str | None, exemplars: str | None
) -> None:
    given = {TEMPORALITY: temporality, FILTER: exemplars}
    both = Both(monkeypatch, {name: value for name, value in given.items() if value is not None})
    chance = random.Random(3)
    values = [0, 5, 1e9, *BOUNDS, *(10 ** chance.uniform(-4, 3) for _ in range(60))]
    # With always_on the SDK's exemplar of a value without a span has the ids of one before it.
    none = span(9) if exemplars == "always_on" else INVALID_SPAN
    exports = 0
    for few in (values[:1], values, [], values[5:9], []):
        for value in few:
            of = chance.choice([span(7), span(8, sampled=False), none, span(chance.randrange(1, 2**63))])
            both.record(value, chance.choice(LABELS), of)
        theirs, ours = map(timeless, both.exported())
        assert ours == theirs
        exports += len(ours)
    assert exports == (3 if temporality in ("delta", "LowMemory") else 5)


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_the_times_of_points_follow_on_each_other_as_the_sdks_do(
    monkeypatch: pytest.MonkeyPatch, temporality: str
) -> None:
    both = Both(monkeypatch, {TEMPORALITY: temporality})
    times: list[tuple[list[HistogramDataPoint], list[HistogramDataPoint]]] = []
    for labels in ({}, {}, {"model": "late"}):
        both.record(0.5, labels, span(1))
        theirs, ours = both.exported()
        times.append((list(points(theirs[0])), list(points(ours[0]))))
    for side in (0, 1):
        first, second, third = (collected[side] for collected in times)
        assert first[0].start_time_unix_nano <= first[0].time_unix_nano < second[0].time_unix_nano
        late = third[-1]
        if temporality == "delta":
            assert second[0].start_time_unix_nano == first[0].time_unix_nano
            assert late.start_time_unix_nano == second[0].time_unix_nano
        else:
            assert second[0].start_time_unix_nano == first[0].start_time_unix_nano
            assert late.start_time_unix_nano > second[0].time_unix_nano


def test_labels_beyond_the_bound_share_one_series() -> None:
    histogram = Histogram("ours", "s", "seconds", BOUNDS)
    known = histogram.series({"number": 0})
    for number in range(MAX_SERIES + 50):
        histogram.series({"number": number}).record(1.0)
    assert histogram.series({"number": 0}) is known
    metric = histogram.collect(9, delta=False)
    assert metric is not None
    found = list(points(metric))
    assert len(found) == MAX_SERIES + 1
    assert found[-1].attributes == {"otel.metric.overflow": True}
    assert found[-1].count == 50


def test_no_value_is_lost_or_exported_twice_between_two_threads() -> None:
    histogram = Histogram("ours", "s", "seconds", BOUNDS)
    series = histogram.series({})
    values, counted, over = 20_000, 0, threading.Event()

    def record() -> None:
        for _ in range(values):
            series.record(0.5)
        over.set()

    thread = threading.Thread(target=record)
    thread.start()
    while True:
        last = over.is_set()
        metric = histogram.collect(9, delta=True)
        if metric is not None:
            counted += sum(point.count for point in points(metric))
        if last:
            break
    thread.join()
    assert counted == values
