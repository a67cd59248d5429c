"""The exposition in Prometheus' protobuf format, the only one that carries native histograms.

A Prometheus that wants native histograms asks for it in its Accept header. A histogram is sent as both kinds at once: which of
them is stored is the scraper's choice.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from google.protobuf import proto
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES, escape_label_name, escape_metric_name
from prometheus_client.samples import Exemplar, Sample

from .client_model import TYPES, MetricFamily

__all__ = ["CONTENT_TYPE", "encoded", "escaping_of"]

CONTENT_TYPE: Final = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

# prometheus_client's type of a family -> the format's; info and stateset are gauges there, as in Prometheus' text format.
_TYPES: Final = {**TYPES, "info": TYPES["gauge"], "stateset": TYPES["gauge"], "unknown": TYPES["untyped"]}


def escaping_of(accept: str) -> str:
    """How names with characters that Prometheus' names did not have before version 3 are written for this Accept header."""
    return ALLOWUTF8 if f"escaping={ALLOWUTF8}" in accept.replace(" ", "") else UNDERSCORES


def encoded(families: Iterable[Metric], escaping: str = UNDERSCORES) -> bytes:
    """The families as length-prefixed messages. A histogram's native buckets are in a sample that has a `native_histogram`."""
    body = io.BytesIO()
    for family in families:
        message = MetricFamily(
            name=escape_metric_name(_name(family), escaping), help=family.documentation, type=_TYPES[family.type]
        )
        for labels, samples in groupby(family.samples, _series):
            metric = message.metric.add()
            for name, value in labels:
                metric.label.add(name=escape_label_name(name, escaping), value=value)
            _WRITERS[family.type](metric, family.name, list(samples))
        if message.metric:
            proto.serialize_length_prefixed(message, body)
    return body.getvalue()


def _name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def _series(sample: Sample) -> tuple[tuple[str, str], ...]:
    """The labels that tell one metric of a family from another; its buckets and quantiles are parts of one metric."""
    return tuple((name, value) for name, value in sample.labels.items() if name not in ("le", "quantile"))


def _counter(metric: Any, name: str, samples: list[Sample]) -> None:
    for sample in samples:
        if sample.name == f"{name}_created":
            _set_time(metric.counter.created_timestamp, sample.value)
        else:
            metric.counter.value = sample.value
            _set_exemplar(metric.counter, sample.exemplar)


def _gauge(metric: Any, name: str, samples: list[Sample]) -> None:
    metric.gauge.value = samples[-1].value


def _untyped(metric: Any, name: str, samples: list[Sample]) -> None:
    metric.untyped.value = samples[-1].value


def _summary(metric: Any, name: str, samples: list[Sample]) -> None:
    for sample, suffix in _suffixed(name, samples):
        if suffix == "_count":
            metric.summary.sample_count = int(sample.value)
        elif suffix == "_sum":
            metric.summary.sample_sum = sample.value
        elif suffix == "_created":
            _set_time(metric.summary.created_timestamp, sample.value)
        else:
            metric.summary.quantile.add(quantile=float(sample.labels["quantile"]), value=sample.value)


def _histogram(metric: Any, name: str, samples: list[Sample]) -> None:
    histogram = metric.histogram
    for sample, suffix in _suffixed(name, samples):
        if sample.native_histogram is not None:
            native = sample.native_histogram
            histogram.schema = native.schema
            histogram.zero_threshold = native.zero_threshold
            histogram.zero_count = int(native.zero_count)
            for span in native.pos_spans or ():
                histogram.positive_span.add(offset=span.offset, length=span.length)
            histogram.positive_delta.extend(native.pos_deltas or ())
        elif suffix == "_bucket":
            bucket = histogram.bucket.add(upper_bound=float(sample.labels["le"]), cumulative_count=int(sample.value))
            _set_exemplar(bucket, sample.exemplar)
        elif suffix in ("_count", "_gcount"):
            histogram.sample_count = int(sample.value)
        elif suffix in ("_sum", "_gsum"):
            histogram.sample_sum = sample.value
        elif suffix == "_created":
            _set_time(histogram.created_timestamp, sample.value)


_WRITERS: Final = {
    "counter": _counter,
    "gauge": _gauge,
    "info": _gauge,
    "stateset": _gauge,
    "unknown": _untyped,
    "untyped": _untyped,
    "summary": _summary,
    "histogram": _histogram,
    "gaugehistogram": _histogram,
}


def _suffixed(name: str, samples: Iterable[Sample]) -> Iterator[tuple[Sample, str]]:
    for sample in samples:
        yield sample, sample.name.removeprefix(name)


def _set_exemplar(holder: Any, exemplar: Exemplar | None) -> None:
    if exemplar is not None:
        for name, value in exemplar.labels.items():
            holder.exemplar.label.add(name=name, value=value)
        holder.exemplar.value = exemplar.value
        if exemplar.timestamp is not None:  # a native histogram's exemplar needs one
            _set_time(holder.exemplar.timestamp, float(exemplar.timestamp))


def _set_time(timestamp: Any, seconds: float) -> None:
    timestamp.FromNanoseconds(round(seconds * 1e9))
