"""Results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from .loads import Load
from .measure import Measured

HEAD = (
    "| | CPU us/event | to bare | events/s | delivered | latency p50 / p99 ms | first event ms | KiB per stream |\n"
    "|---|---|---|---|---|---|---|---|"
)


def table(name: str, load: Load, results: Mapping[str, Sequence[Measured]]) -> str:
    """One load: medians, with ranges where they matter. Ratios are taken round by round, then their median."""
    bare = [one.cpu_us for one in results.get("bare", [])]
    rows = [_row(peer, runs, bare) for peer, runs in results.items()]
    bound = [peer for peer, runs in results.items() if any(one.harness_bound for one in runs)]
    notes = [f"harness-bound: {', '.join(bound)}"] if bound else []
    for peer, runs in results.items():
        if peer.startswith("relay@"):
            ratios = [own.cpu_us / other.cpu_us for own, other in zip(results["relay"], runs, strict=True)]
            notes.append(f"CPU of relay to {peer}: {spread(ratios, 3)}")
    return "\n".join([f"\n### {name}: {load.title}\n", HEAD, *rows, *(f"\n{note}" for note in notes)])


def _row(peer: str, runs: Sequence[Measured], bare: Sequence[float]) -> str:
    problems = {kind: count for one in runs for kind, count in one.problems.items()}
    ratios = [one.cpu_us / base for one, base in zip(runs, bare, strict=False)]
    cells = [
        peer,
        spread([one.cpu_us for one in runs], 1),
        spread(ratios, 2),
        f"{middle(runs, 'events_per_second'):,.0f}",
        f"{100 * min(one.delivered for one in runs):.0f} %{' ' + str(problems) if problems else ''}",
        f"{middle(runs, 'latency_p50'):.2f} / {middle(runs, 'latency_p99'):.2f}",
        f"{middle(runs, 'first_p50'):.1f}",
        f"{middle(runs, 'rss_kib'):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def middle(runs: Sequence[Measured], name: str) -> float:
    return statistics.median(getattr(one, name) for one in runs)


def spread(values: Sequence[float], digits: int) -> str:
    """The median and, of several, the range."""
    if not values:
        return ""
    low, median, high = min(values), statistics.median(values), max(values)
    if len(values) == 1:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} [{low:.{digits}f} .. {high:.{digits}f}]"
