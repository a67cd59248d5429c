"""A scrape's answer: the families of the registry (`metrics.py`) for all workers, as Prometheus text or OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from ..workers.registered import families_of
from .metric_rows import Scraped
from .metrics import METRICS, Spec

__all__ = ["exposition"]

_NAMES = {spec.name.removesuffix("_total") for spec in METRICS}


class _OneScrape(Collector):
    def __init__(self, snapshots: list[Scraped], registered: Mapping[str, list[dict[str, Any]]]) -> None:
        self._snapshots = snapshots
        self._registered = registered

    def collect(self) -> Iterator[Metric]:
        for spec in METRICS:
            yield _family(spec, self._snapshots)
        yield from families_of(self._registered, _NAMES)


def exposition(
    snapshots: list[Scraped], accept: str, registered: Mapping[str, list[dict[str, Any]]] | None = None
) -> tuple[bytes, str]:
    """The scrape's body and content type: OpenMetrics where the header `accept` has it, else Prometheus text.

    registered   worker -> the families that the service itself registered
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OneScrape(snapshots, registered or {}))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _family(spec: Spec, snapshots: list[Scraped]) -> Metric:
    labels = ("worker", *spec.labels)
    rows = [((snapshot.worker, *values), value) for snapshot in snapshots for values, value in spec.rows(snapshot)]
    if spec.kind == "histogram":
        histogram = HistogramMetricFamily(spec.name, spec.help, labels=labels)
        for values, value in rows:
            histogram.add_metric(values, buckets=_cumulative(value), sum_value=value["sum"])
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
