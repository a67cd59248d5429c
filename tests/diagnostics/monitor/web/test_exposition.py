"""The three formats of a scrape: what each says of the same observations."""

from __future__ import annotations

import bisect
import io
import os
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import pytest
from google.protobuf import proto
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary

from diagnostics.agent.histogram import GAP_SECONDS
from diagnostics.agent.histogram import Histogram as Observed
from diagnostics.monitor.captures.counts import CaptureCounts
from diagnostics.monitor.kernel.process import read_process
from diagnostics.monitor.web.client_model import TYPES, MetricFamily
from diagnostics.monitor.web.exposition import exposition, wants_protobuf
from diagnostics.monitor.web.metric_rows import Scraped
from diagnostics.monitor.web.protobuf import CONTENT_TYPE, encoded
from diagnostics.monitor.workers.targets import Snapshot

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
# What Prometheus 2.42 sends with native histograms, and without.
CLASSIC = f"{OPENMETRICS},application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
NATIVE = f"{PROTOBUF},{CLASSIC}"


def decoded(body: bytes) -> dict[str, Any]:
    stream, found = io.BytesIO(body), {}
    while (message := proto.parse_length_prefixed(MetricFamily, stream)) is not None:
        found[message.name] = message
    return found


def scraped(loop_lag: Mapping[str, Any], accept: str) -> tuple[bytes, str]:
    process = read_process(os.getpid())
    assert process is not None
    snapshot = Snapshot(worker="0", process=process, state="answering", reading={"loop_lag": loop_lag})
    one = Scraped.of(
        snapshot, outlook=None, firings={}, actions={}, captures=CaptureCounts(), pushes={}, children=None,
        verdict="load_only", restarts=0, oom_kills=0,
    )  # fmt: skip
    return exposition([one], accept)


def native_counts(histogram: Any) -> dict[int, int]:
    """Index -> count, as a reader of the format adds them up."""
    indices, at = [], 0
    for span in histogram.positive_span:
        at += span.offset
        indices += range(at, at + span.length)
        at += span.length
    return dict(zip(indices, accumulate(histogram.positive_delta), strict=True))


@given(st.lists(st.one_of(st.floats(0, 1e5), st.sampled_from([0.0, 0.001, 0.5, 2.0**-16, 60.0, 4096.0, 4097.0]))))
def test_both_kinds_of_histogram_count_each_observation_in_its_bucket(values: list[float]) -> None:
    observed = Observed(GAP_SECONDS)
    for value in values:
        observed.observe(value)
    body, content_type = scraped(observed.to_json(), NATIVE)
    assert content_type == CONTENT_TYPE
    family = decoded(body)["event_loop_lag_seconds"]
    (metric,) = family.metric
    told = metric.histogram
    assert family.type == TYPES["histogram"]
    assert [(label.name, label.value) for label in metric.label] == [("worker", "0")]
    assert (told.sample_count, told.sample_sum, told.schema) == (len(values), pytest.approx(sum(values)), 3)
    for bucket in told.bucket:
        assert bucket.cumulative_count == sum(value <= bucket.upper_bound for value in values)
    # Prometheus' own rule for where a value belongs: the first bucket whose upper bound is not below it.
    bounds = {index: 2.0 ** (index / 8) for index in range(-200, 200)}
    expected: dict[int, int] = {}
    for value in values:
        if value > told.zero_threshold:
            index = bisect.bisect_left(list(bounds.values()), min(value, 4096.1)) - 200
            expected[index] = expected.get(index, 0) + 1
    assert native_counts(told) == expected
    assert told.zero_count == sum(value <= told.zero_threshold for value in values)
    assert told.zero_threshold == 2.0**-16  # an empty one is native, too, since it has a threshold


def test_exemplars_are_in_every_format_that_has_them() -> None:
    observed = Observed(GAP_SECONDS)
    observed.observe(0.3, "4bf92f3577b34da6a3ce929d0e0e4736")
    told = decoded(scraped(observed.to_json(), NATIVE)[0])["event_loop_lag_seconds"].metric[0].histogram
    (bucket,) = [bucket for bucket in told.bucket if bucket.HasField("exemplar")]
    assert (bucket.upper_bound, bucket.exemplar.value) == (0.5, 0.3)
    assert [(label.name, label.value) for label in bucket.exemplar.label] == [
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736")
    ]
    assert bucket.exemplar.timestamp.seconds > 1e9
    text = scraped(observed.to_json(), CLASSIC)[0].decode()
    assert 'event_loop_lag_seconds_bucket{le="0.5",worker="0"} 1.0 # {trace_id=' in text
    # An agent of an earlier release tells classic buckets alone.
    older = {name: value for name, value in observed.to_json().items() if name != "native"}
    told = decoded(scraped(older, NATIVE)[0])["event_loop_lag_seconds"].metric[0].histogram
    assert (told.sample_count, told.zero_threshold, len(told.positive_span)) == (1, 0, 0)


def test_every_type_that_a_service_registers_is_written() -> None:
    registry = CollectorRegistry()
    Counter("asked", "Questions.", ["how"], registry=registry).labels("well").inc(3, {"trace_id": "a"})
    Gauge("now", "Now.", registry=registry).set(-2.5)
    Summary("took", "Taken.", registry=registry).observe(4)
    Histogram("size", "Size.", buckets=(1, 10), registry=registry).observe(5)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    Enum("state", "State.", states=["on", "off"], registry=registry).state("off")
    found = decoded(encoded(registry.collect()))
    assert {name: family.type for name, family in found.items()} == {
        "asked_total": TYPES["counter"], "now": TYPES["gauge"], "took": TYPES["summary"], "size": TYPES["histogram"],
        "build_info": TYPES["gauge"], "state": TYPES["gauge"],
    }  # fmt: skip
    (asked,) = found["asked_total"].metric
    assert (asked.counter.value, asked.counter.exemplar.label[0].value, asked.label[0].value) == (3, "a", "well")
    assert asked.counter.created_timestamp.seconds > 1e9
    assert found["now"].metric[0].gauge.value == -2.5
    assert (found["took"].metric[0].summary.sample_count, found["took"].metric[0].summary.sample_sum) == (1, 4)
    size = found["size"].metric[0].histogram
    assert [(bucket.upper_bound, bucket.cumulative_count) for bucket in size.bucket] == [
        (1, 0), (10, 1), (float("inf"), 1),
    ]  # fmt: skip
    assert [(one.label[0].value, one.gauge.value) for one in found["state"].metric] == [("on", 0), ("off", 1)]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (NATIVE, True),
        (CLASSIC, False),
        ("", False),
        ("*/*", False),
        (f"{OPENMETRICS};q=0.9,{PROTOBUF};q=0.8", False),
        (PROTOBUF.upper(), True),
        (PROTOBUF.replace(";", "; "), True),
        (PROTOBUF.replace("delimited", "text"), False),
        ("application/vnd.google.protobuf;proto=other;encoding=delimited", False),
        (f"{PROTOBUF};q=0", False),
        (f"{PROTOBUF};q=none,text/plain;q=0.1", False),
    ],
)
def test_protobuf_goes_to_who_likes_it_best(accept: str, wanted: bool) -> None:
    assert wants_protobuf(accept) is wanted
