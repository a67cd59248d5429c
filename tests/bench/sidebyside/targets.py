"""What the relay must reach, and whether it does. A target whose case was not measured is left out."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .rounds import Results


@dataclass(frozen=True)
class Target:
    """`value` of the results, None where it cannot be had, must be `limit` at most (or at least)."""

    what: str
    limit: float
    value: Callable[[Results], float | None]
    at_least: bool = False
    unit: str = ""

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def figure(case: str, name: str, peer: str = "relay") -> Callable[[Results], float | None]:
    """The median over the rounds."""

    def value(results: Results) -> float | None:
        found = [run[name] for run in results.get((peer, case), [])]
        return statistics.median(found) if found else None

    return value


def to(other: str, case: str, name: str) -> Callable[[Results], float | None]:
    """The relay's figure to another peer's: the median of the rounds' ratios."""

    def value(results: Results) -> float | None:
        pairs = zip(results.get(("relay", case), []), results.get((other, case), []), strict=False)
        found = [own[name] / their[name] for own, their in pairs]
        return statistics.median(found) if found else None

    return value


def total(case: str, *names: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        found = [sum(run[name] for name in names) for run in results.get(("relay", case), [])]
        return statistics.median(found) if found else None

    return value


def between(case: str, other: str, name: str) -> Callable[[Results], float | None]:
    """The relay's figure in one case to its own in another."""

    def value(results: Results) -> float | None:
        pairs = zip(results.get(("relay", case), []), results.get(("relay", other), []), strict=False)
        found = [one[name] / two[name] for one, two in pairs]
        return statistics.median(found) if found else None

    return value


TARGETS = (
    Target("paced CPU per event, to bare", 1.0, to("bare", "paced", "cpu_us")),
    Target("CPU per event at 1,000 x 20/s, to bare", 1.0, to("bare", "thousand", "cpu_us")),
    Target("paced CPU per event, to SDK with OpenTelemetry", 0.2, to("sdk_otel", "paced", "cpu_us")),
    Target("delivered at 1,000 x 20/s", 1.0, figure("thousand", "delivered"), at_least=True),
    Target("burst events/s, to bare", 0.85, to("bare", "burst", "events_per_second"), at_least=True),
    Target("burst events/s, to SDK", 20.0, to("sdk", "burst", "events_per_second"), at_least=True),
    Target("RSS per open idle stream, 1,000 open", 20.0, figure("idle_1000", "rss_kib"), unit=" KiB"),
    Target("RSS per open idle stream, 5,000 open", 20.0, figure("idle_5000", "rss_kib"), unit=" KiB"),
    Target("RSS growth per slow client", 64.0, figure("slow", "rss_kib"), unit=" KiB"),
    Target("the same with kernel buffers", 256.0, total("slow", "rss_kib", "kernel_kib"), unit=" KiB"),
    Target("a client that never reads, all layers", 256.0, total("never", "rss_kib", "kernel_kib"), unit=" KiB"),
    Target("added latency at half load, p99", 1.0, figure("half_load", "event_added_p99"), unit=" ms"),
    Target("first event added at half load, p50", 2.0, figure("half_load", "first_added_p50"), unit=" ms"),
    Target("client leaves to upstream closed, p99", 100.0, figure("leaving", "close_p99"), unit=" ms"),
    Target("upstreams never closed", 0.0, figure("leaving", "never_closed")),
    Target("CPU per event, 5,000 to 100 streams", 1.3, between("five_thousand", "hundred", "cpu_us")),
)


def judged(results: Results) -> str:
    """A table of the targets that were measured."""
    lines = ["| target | limit | measured | met |", "|---|---|---|---|"]
    for target in TARGETS:
        value = target.value(results)
        if value is not None:
            sign = ">=" if target.at_least else "<="
            met = "yes" if target.met(value) else "**no**"
            lines.append(
                f"| {target.what} | {sign} {target.limit:g}{target.unit} | {value:,.2f}{target.unit} | {met} |"
            )
    return "\n".join(lines) if len(lines) > 2 else ""
