"""What the relay must reach, and whether it does. A target whose case was not measured is left out.

The monitor counts: what it uses is in each figure of CPU. Ratios are of one round, and the median of the rounds is judged.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .report import spread
from .rounds import LOAD_AVERAGE, Results

# With less than this of its events the relay was starved or overrun, and what it spent on the rest says nothing.
LEAST_DELIVERED = 0.99

Value = Callable[[Results], list[float]]


@dataclass(frozen=True)
class Target:
    """The median of `value`, one of each round, must be `limit` at most (or at least); `case` is what it is of.

    delivery   the figure says nothing where events did not come in time
    """

    what: str
    limit: float
    case: str
    value: Value
    at_least: bool = False
    unit: str = ""
    delivery: bool = True
    digits: int = 2

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def own(case: str, *names: str) -> Value:
    """The relay's figure, or the sum of several."""
    return lambda results: [sum(run[name] for name in names) for run in results.get(("relay", case), [])]


def ratio(name: str, case: str, *, to: str = "relay", in_case: str = "") -> Value:
    """The relay's figure to another peer's, or to its own in another case."""

    def value(results: Results) -> list[float]:
        pairs = zip(results.get(("relay", case), []), results.get((to, in_case or case), []), strict=False)
        return [one[name] / two[name] for one, two in pairs]

    return value


TARGETS = (
    Target(
        "200 completions a minute, CPU of a stream to bare", 0.9, "completion", ratio("cpu_ms", "completion", to="bare")
    ),
    Target(
        "2,000 completions a minute, CPU of a stream to bare",
        0.9,
        "completion_2000",
        ratio("cpu_ms", "completion_2000", to="bare"),
    ),
    Target("paced with openings, CPU to bare", 0.9, "paced_whole", ratio("cpu_ms", "paced_whole", to="bare")),
    Target("streams of 20 events, CPU to bare", 1.5, "short", ratio("cpu_ms", "short", to="bare")),
    Target(
        "storm: all have their first event, to bare",
        1.0,
        "storm",
        ratio("first_all", "storm", to="bare"),
        delivery=False,
    ),
    Target(
        "storm: delivered, to nginx",
        1.0,
        "storm",
        ratio("delivered", "storm", to="nginx"),
        at_least=True,
        delivery=False,
    ),
    Target("paced CPU per event, to bare", 1.0, "paced", ratio("sum_us", "paced", to="bare")),
    Target("CPU per event at 1,000 x 20/s, to bare", 0.75, "thousand", ratio("sum_us", "thousand", to="bare")),
    Target("the same, to nginx", 1.7, "thousand", ratio("sum_us", "thousand", to="nginx")),
    Target("paced CPU per event, to SDK with OpenTelemetry", 0.2, "paced", ratio("sum_us", "paced", to="sdk_otel")),
    Target("delivered at 1,000 x 20/s", 1.0, "thousand", own("thousand", "delivered"), at_least=True, delivery=False),
    Target("events passed on byte by byte", 1.0, "paced", own("paced", "exact"), at_least=True),
    Target("burst events/s, to bare", 0.85, "burst", ratio("events_per_second", "burst", to="bare"), at_least=True),
    Target("burst events/s, to SDK", 20.0, "burst", ratio("events_per_second", "burst", to="sdk"), at_least=True),
    Target("RSS per open idle stream, 1,000 open", 17.0, "idle_1000", own("idle_1000", "rss_kib"), unit=" KiB"),
    Target("RSS per open idle stream, 5,000 open", 20.0, "idle_5000", own("idle_5000", "rss_kib"), unit=" KiB"),
    Target("RSS of the relay's process once started", 90.0, "start", own("start", "rss_mib"), unit=" MiB"),
    Target("RSS growth per slow client", 64.0, "slow", own("slow", "rss_kib"), unit=" KiB"),
    Target("the same with kernel buffers", 256.0, "slow", own("slow", "rss_kib", "kernel_kib"), unit=" KiB"),
    Target("a client that never reads, all layers", 256.0, "never", own("never", "rss_kib", "kernel_kib"), unit=" KiB"),
    Target(
        "added latency at half load, p99, to bare", 1.0, "half_load", ratio("event_added_p99", "half_load", to="bare")
    ),
    Target("added latency at half load, p99", 1.0, "half_load", own("half_load", "event_added_p99"), unit=" ms"),
    Target(
        "first event added at half load, p50, to bare",
        1.2,
        "half_load",
        ratio("first_added_p50", "half_load", to="bare"),
    ),
    Target("first event added at half load, p50", 2.0, "half_load", own("half_load", "first_added_p50"), unit=" ms"),
    Target("client leaves to upstream closed, p99", 100.0, "leaving", own("leaving", "close_p99"), unit=" ms"),
    Target("upstreams never closed", 0.0, "leaving", own("leaving", "never_closed")),
    Target(
        "CPU per event, 5,000 to 100 streams", 1.3, "five_thousand", ratio("sum_us", "five_thousand", in_case="hundred")
    ),
    Target(
        "monitor beside 100 idle streams",
        0.01,
        "monitor_100",
        own("monitor_100", "idle_cores"),
        unit=" cores",
        digits=4,
    ),
    Target(
        "monitor beside 1,000 idle streams",
        0.01,
        "monitor_1000",
        own("monitor_1000", "idle_cores"),
        unit=" cores",
        digits=4,
    ),
    Target(
        "monitor beside 5,000 streams", 0.02, "monitor_5000", own("monitor_5000", "busy_cores"), unit=" cores", digits=4
    ),
    Target(
        "its looks keep the GIL, 1,000 streams", 0.3, "monitor_1000", own("monitor_1000", "busy_held_ms"), unit=" ms"
    ),
    Target(
        "its looks keep the GIL, 5,000 streams", 0.3, "monitor_5000", own("monitor_5000", "busy_held_ms"), unit=" ms"
    ),
)


def judged(results: Results) -> str:
    """A table of the targets that were measured, each with the machine's load average as its case began."""
    lines = ["| target | limit | measured | load average | met |", "|---|---|---|---|---|"]
    for target in TARGETS:
        measured = target.value(results)
        if not measured:
            continue
        values = [value for value in measured if not math.isnan(value)]
        runs = results.get(("relay", target.case), [])
        sign = ">=" if target.at_least else "<="
        delivered = min((run.get("delivered", 1.0) for run in runs), default=1.0)
        if not values:
            met = "not judged: neither has such a figure"
        else:
            met = "yes" if target.met(statistics.median(values)) else "**no**"
        if target.delivery and delivered < LEAST_DELIVERED:
            met = f"not judged: {delivered:.0%} of the events came in time"
        load = spread([run[LOAD_AVERAGE] for run in runs if LOAD_AVERAGE in run], 1)
        limit = f"{sign} {target.limit:g}{target.unit}"
        lines.append(f"| {target.what} | {limit} | {spread(values, target.digits)}{target.unit} | {load} | {met} |")
    return "\n".join(lines) if len(lines) > 2 else ""
