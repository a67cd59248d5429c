"""Results as Markdown: the table of peers, the targets and whether each is met, and every case in full."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from .cases import Case
from .peers import TITLES
from .rounds import Results
from .targets import judged


def report(results: Results, cases: Mapping[str, Case], peers: Sequence[str]) -> str:
    parts = [peer_table(results, peers), judged(results)]
    parts += [case_table(name, cases[name], results, peers) for name in cases]
    return "\n\n".join(part for part in parts if part)


# name of the column, case, figure, digits
COLUMNS = (
    ("paced, us/event", "paced", "cpu_us", 1),
    ("1,000 x 20/s, us/event", "thousand", "cpu_us", 1),
    ("of it delivered", "thousand", "delivered", 2),
    ("burst, events/s", "burst", "events_per_second", 0),
    ("burst, us/event", "burst", "cpu_us", 2),
    ("KiB RSS per open stream", "idle_1000", "rss_kib", 1),
    ("KiB RSS per slow client", "slow", "rss_kib", 1),
    ("KiB of it in the kernel", "slow", "kernel_kib", 0),
)


def peer_table(results: Results, peers: Sequence[str]) -> str:
    """One row a peer: medians, and of CPU per paced event the ratio to `bare`, taken round by round."""
    columns = [column for column in COLUMNS if any((peer, column[1]) in results for peer in peers)]
    lines = [
        f"| | {' | '.join(name for name, *_ in columns)} | paced, to bare |",
        f"|---{'|---' * (len(columns) + 1)}|",
    ]
    for peer in peers:
        cells = [spread(figures(results, peer, case, name), digits) for _, case, name, digits in columns]
        cells.append(spread(ratios(results, peer, "bare", "paced", "cpu_us"), 2))
        lines.append(f"| {TITLES.get(peer, peer)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def case_table(name: str, case: Case, results: Results, peers: Sequence[str]) -> str:
    """All figures of one case: medians and ranges."""
    found = {peer: results[peer, name] for peer in peers if (peer, name) in results}
    if not found:
        return ""
    columns = list(next(iter(found.values()))[0])
    columns = [column for column in columns if column != "harness_bound"]
    lines = [f"### {name}: {case.title}\n", f"| | {' | '.join(columns)} | |", f"|---{'|---' * (len(columns) + 1)}|"]
    for peer, runs in found.items():
        cells = [spread([run[column] for run in runs], 2) for column in columns]
        bound = "harness-bound" if any(run.get("harness_bound") for run in runs) else ""
        lines.append(f"| {peer} | {' | '.join(cells)} | {bound} |")
    if "cpu_us" in columns:
        lines += [
            f"\nCPU of {peer} to {other}: {spread(ratios(results, peer, other, name, 'cpu_us'), 3)}"
            for peer in found
            for other in found
            if peer != other and (other == "bare" or (peer == "relay" and other.startswith("relay@")))
        ]
    return "\n".join(lines)


def figures(results: Results, peer: str, case: str, name: str) -> list[float]:
    return [run[name] for run in results.get((peer, case), [])]


def ratios(results: Results, peer: str, other: str, case: str, name: str) -> list[float]:
    """Round by round."""
    pairs = zip(figures(results, peer, case, name), figures(results, other, case, name), strict=False)
    return [one / two for one, two in pairs]


def spread(values: Sequence[float], digits: int) -> str:
    """The median and, of several, the range."""
    if not values:
        return ""
    median, low, high = (f"{each:,.{digits}f}" for each in (statistics.median(values), min(values), max(values)))
    return median if low == high else f"{median} [{low} .. {high}]"
