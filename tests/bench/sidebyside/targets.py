"""What the relay must reach, and whether it does. A target whose case was not measured is left out."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .rounds import Results

# With less than this of its events the relay was starved or overrun, and what it spent on the rest says nothing.
LEAST_DELIVERED = 0.99

Value = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """`value` of the results, None where it cannot be had, must be `limit` at most (or at least); `case` is what it is of."""

    what: str
    limit: float
    case: str
    value: Value
    at_least: bool = False
    unit: str = ""

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def own(case: str, *names: str) -> Value:
    """The relay's figure, or the sum of several: the median over the rounds."""

    def value(results: Results) -> float | None:
        found = [sum(run[name] for name in names) for run in results.get(("relay", case), [])]
        return statistics.median(found) if found else None

    return value


def ratio(name: str, case: str, *, to: str = "relay", in_case: str = "") -> Value:
    """The relay's figure to another peer's, or to its own in another case: the median of the rounds' ratios."""

    def value(results: Results) -> float | None:
        pairs = zip(results.get(("relay", case), []), results.get((to, in_case or case), []), strict=False)
        found = [one[name] / two[name] for one, two in pairs]
        return statistics.median(found) if found else None

    return value


TARGETS = (
    Target("paced CPU per event, to bare", 1.0, "paced", ratio("cpu_us", "paced", to="bare")),
    Target("CPU per event at 1,000 x 20/s, to bare", 1.0, "thousand", ratio("cpu_us", "thousand", to="bare")),
    Target("paced CPU per event, to SDK with OpenTelemetry", 0.2, "paced", ratio("cpu_us", "paced", to="sdk_otel")),
    Target("delivered at 1,000 x 20/s", 1.0, "", own("thousand", "delivered"), at_least=True),
    Target("events passed on byte by byte", 1.0, "paced", own("paced", "exact"), at_least=True),
    Target("burst events/s, to bare", 0.85, "burst", ratio("events_per_second", "burst", to="bare"), at_least=True),
    Target("burst events/s, to SDK", 20.0, "burst", ratio("events_per_second", "burst", to="sdk"), at_least=True),
    Target("RSS per open idle stream, 1,000 open", 20.0, "idle_1000", own("idle_1000", "rss_kib"), unit=" KiB"),
    Target("RSS per open idle stream, 5,000 open", 20.0, "idle_5000", own("idle_5000", "rss_kib"), unit=" KiB"),
    Target("RSS growth per slow client", 64.0, "slow", own("slow", "rss_kib"), unit=" KiB"),
    Target("the same with kernel buffers", 256.0, "slow", own("slow", "rss_kib", "kernel_kib"), unit=" KiB"),
    Target("a client that never reads, all layers", 256.0, "never", own("never", "rss_kib", "kernel_kib"), unit=" KiB"),
    Target("added latency at half load, p99", 1.0, "half_load", own("half_load", "event_added_p99"), unit=" ms"),
    Target("first event added at half load, p50", 2.0, "half_load", own("half_load", "first_added_p50"), unit=" ms"),
    Target("client leaves to upstream closed, p99", 100.0, "leaving", own("leaving", "close_p99"), unit=" ms"),
    Target("upstreams never closed", 0.0, "leaving", own("leaving", "never_closed")),
    Target(
        "CPU per event, 5,000 to 100 streams", 1.3, "five_thousand", ratio("cpu_us", "five_thousand", in_case="hundred")
    ),
)


def judged(results: Results) -> str:
    """A table of the targets that were measured."""
    lines = ["| target | limit | measured | met |", "|---|---|---|---|"]
    for target in TARGETS:
        value = target.value(results)
        if value is None:
            continue
        sign = ">=" if target.at_least else "<="
        delivered = min((run.get("delivered", 1.0) for run in results.get(("relay", target.case), [])), default=1.0)
        met = "yes" if target.met(value) else "**no**"
        if delivered < LEAST_DELIVERED:
            met = f"not judged: {delivered:.0%} of the events came in time"
        lines.append(f"| {target.what} | {sign} {target.limit:g}{target.unit} | {value:,.2f}{target.unit} | {met} |")
    return "\n".join(lines) if len(lines) > 2 else ""
