"""The body of a scrape: families of the metric registry, made from the workers' readings, followed by the families that the
services registered themselves; in the format that the scraper likes best.

    Prometheus' protobuf   native histograms, classic ones, and exemplars
    OpenMetrics            classic histograms with exemplars
    Prometheus' text       classic histograms; for whoever asks for neither of the others
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import BucketSpan, Exemplar, NativeHistogram

from ..workers.registered import families_of
from .metric_rows import Scraped
from .metrics import METRICS, Spec

__all__ = ["exposition", "wants_protobuf"]

PROTOBUF: Final = "application/vnd.google.protobuf"
PARAMETERS: Final = {"proto=io.prometheus.client.metricfamily", "encoding=delimited"}

_NAMES = {spec.name.removesuffix("_total") for spec in METRICS}


class _OneScrape(Collector):
    """`native`: each series of a histogram has one more sample, of its native buckets, which no text format has a place for."""

    def __init__(
        self, snapshots: list[Scraped], registered: Mapping[str, list[dict[str, Any]]], *, native: bool
    ) -> None:
        self._snapshots = snapshots
        self._registered = registered
        self._native = native

    def collect(self) -> Iterator[Metric]:
        for spec in METRICS:
            yield _family(spec, self._snapshots, native=self._native)
        yield from families_of(self._registered, _NAMES)


def exposition(
    snapshots: list[Scraped], accept: str, registered: Mapping[str, list[dict[str, Any]]] | None = None
) -> tuple[bytes, str]:
    """The scrape's body and content type, by the request's Accept header.

    registered   worker -> the families that the service itself registered
    """
    if wants_protobuf(accept):
        # Only then: a monitor that nobody asks for it does without the library's memory.
        from .protobuf import CONTENT_TYPE, encoded, escaping_of

        scrape = _OneScrape(snapshots, registered or {}, native=True)
        return encoded(scrape.collect(), escaping_of(accept)), CONTENT_TYPE
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OneScrape(snapshots, registered or {}, native=False))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def wants_protobuf(accept: str) -> bool:
    """Whether Prometheus' protobuf format is what an Accept header likes best: of two with the same weight, the first.

    >>> protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    >>> wants_protobuf(protobuf + ",text/plain;q=0.5"), wants_protobuf("text/plain," + protobuf), wants_protobuf("*/*")
    (True, False, False)
    """
    best, weight = False, 0.0
    for entry in accept.lower().split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        liked = next((_weight(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        if liked > weight:
            best, weight = media == PROTOBUF and set(parameters) >= PARAMETERS, liked
    return best


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _family(spec: Spec, snapshots: list[Scraped], *, native: bool) -> Metric:
    labels = ("worker", *spec.labels)
    rows = [((snapshot.worker, *values), value) for snapshot in snapshots for values, value in spec.rows(snapshot)]
    if spec.kind == "histogram":
        histogram = HistogramMetricFamily(spec.name, spec.help, labels=labels)
        for values, value in rows:
            histogram.add_metric(values, buckets=_cumulative(value), sum_value=value["sum"])
            if native and (buckets := _native(value)) is not None:
                series = dict(zip(labels, values, strict=True))
                histogram.add_sample(spec.name, series, 0.0, native_histogram=buckets)
        return histogram
    family: GaugeMetricFamily | CounterMetricFamily
    if spec.kind == "gauge":
        family = GaugeMetricFamily(spec.name, spec.help, labels=labels)
    else:
        family = CounterMetricFamily(spec.name.removesuffix("_total"), spec.help, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _cumulative(histogram: Mapping[str, Any]) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """(upper bound, observations up to it) of each bucket, with its exemplar where it has one."""
    traces = {bucket: exemplar for bucket, *exemplar in histogram.get("exemplars", ())}
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    total = 0.0
    for index, (bound, count) in enumerate(zip([*histogram["bounds"], "+Inf"], histogram["counts"], strict=True)):
        total += count
        name = str(bound) if bound == "+Inf" else f"{float(bound)}"
        if index in traces:
            trace_id, value, at = traces[index]
            buckets.append((name, total, Exemplar({"trace_id": trace_id}, value, at)))
        else:
            buckets.append((name, total))
    return buckets


def _native(counted: Mapping[str, Any]) -> NativeHistogram | None:
    """The native histogram in the JSON of an agent; None where an older agent has counted classic buckets alone.

    Buckets are written as the lengths of their runs and the gaps between them, and counts as differences.
    """
    native = counted.get("native")
    if native is None:
        return None
    spans: list[BucketSpan] = []
    deltas: list[int] = []
    after = last = 0  # the index after the last bucket, and the count in it
    for index, count in native["buckets"]:
        if spans and index == after:
            spans[-1] = spans[-1]._replace(length=spans[-1].length + 1)
        else:
            spans.append(BucketSpan(index - after, 1))
        deltas.append(count - last)
        after, last = index + 1, count
    return NativeHistogram(
        sum(counted["counts"]), counted["sum"], native["schema"], native["zero_threshold"], native["zero_count"],
        pos_spans=spans, pos_deltas=deltas,
    )  # fmt: skip
