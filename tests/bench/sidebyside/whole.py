"""Whole streams: what they cost from their opening to their end, of the service and of what runs beside it."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from .loads import Load
from .measure import BUSY, scraped
from .peers import Serving
from .processes import PeerFailedError, beside_rss_bytes, beside_seconds, cpu_seconds, rss_bytes
from .traffic import Traffic

# Spans and the log line of the last stream are made after its end.
AFTER_SECONDS = 0.3
MIB = 1024.0 * 1024.0


def whole(serving: Serving, load: Load, traffic: Traffic) -> dict[str, float]:
    """All CPU between the first connect and what follows the last end. A stream that has no end counts as not delivered.

    cpu_ms, cpu_us      CPU of a stream in ms, and divided among its events in microseconds; with the monitor's
    monitor_ms          of cpu_ms, the monitor's
    monitor             what the monitor used, as a share of one core; busy: the same of the process that serves
    delivered           events that came in time, of all
    completed           streams that ended as they should, of all
    first_p50, _p99     from asking to the first event, in ms
    first_all           from the start until all streams had their first event, in seconds; infinite where one never had any
    """
    pid = serving.pid
    with scraped(serving.monitor):
        began, cpu, beside = time.monotonic(), cpu_seconds(pid), beside_seconds(pid)
        harness = traffic.upstream_cpu_seconds()
        report = traffic.run(serving.url, load)
        time.sleep(AFTER_SECONDS)
        cpu, beside = cpu_seconds(pid) - cpu, beside_seconds(pid) - beside
        seconds = time.monotonic() - began
        harness = (traffic.upstream_cpu_seconds() - harness + report["own_cpu_seconds"]) / seconds
    return _figures(report, serving, load, cpu, beside, seconds, harness)


def _figures(
    report: dict[str, Any], serving: Serving, load: Load, cpu: float, beside: float, seconds: float, harness: float
) -> dict[str, float]:
    if report["problems"]:
        print(f"{serving.url}: {report['problems']}", file=sys.stderr)
    if report["events"] == 0:
        raise PeerFailedError(f"no event came through: {report['problems']}")
    firsts, streams = report["first_event_ms"], report["streams"]
    return {
        "cpu_ms": 1e3 * (cpu + beside) / streams,
        "monitor_ms": 1e3 * beside / streams,
        "cpu_us": 1e6 * (cpu + beside) / report["events"],
        "streams_per_second": report["completed"] / report["seconds"],
        "delivered": report["events"] / report["expected"],
        "completed": report["completed"] / streams,
        "first_p50": firsts["p50"],
        "first_p99": firsts["p99"],
        **({} if load.again else {"first_all": report["open_seconds"] if firsts["count"] == streams else math.inf}),
        "latency_p99": report["latency_ms"].get("p99", math.nan),
        "busy": cpu / seconds,
        "monitor": beside / seconds,
        "harness": harness,
        "harness_bound": harness > BUSY > cpu / seconds,
    }


def at_start(serving: Serving, traffic: Traffic) -> dict[str, float]:
    """MiB of resident memory of a process that has served a few short streams, and of its monitor."""
    return {"rss_mib": rss_bytes(serving.pid) / MIB, "monitor_mib": beside_rss_bytes(serving.pid) / MIB}
