"""Results as Markdown: the table of peers, and every case in full; and as data that the same tables are made of again."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cases import Case
from .peers import TITLES
from .rounds import Results

# name of the column, case, figure, digits
COLUMNS = (
    ("stream of 20 events, ms of CPU", "short", "cpu_ms", 2),
    ("paced with openings, us/event", "paced_whole", "cpu_us", 1),
    ("paced, us/event", "paced", "sum_us", 1),
    ("1,000 x 20/s, us/event", "thousand", "sum_us", 1),
    ("of it delivered", "thousand", "delivered", 2),
    ("burst, events/s", "burst", "events_per_second", 0),
    ("KiB RSS per open stream", "idle_1000", "rss_kib", 1),
    ("KiB RSS per slow client", "slow", "rss_kib", 1),
    ("KiB of it in the kernel", "slow", "kernel_kib", 0),
)
# The first that a case has is compared between peers.
COMPARED = ("cpu_ms", "sum_us", "cpu_us")
# Said in a word behind the row.
HARNESS_BOUND = "harness_bound"
# Median, lowest and highest of the rounds; None where a figure is not finite: nothing of it was seen.
Spread = list[float | None]


def peer_table(results: Results, peers: Sequence[str]) -> str:
    """One row a peer: medians, with the monitor's CPU; of a paced event and of a short stream the ratio to `bare` by round."""
    columns = [column for column in COLUMNS if any((peer, column[1]) in results for peer in peers)]
    compared = [
        (case, figure) for case, figure in (("paced", "sum_us"), ("short", "cpu_ms")) if ("bare", case) in results
    ]
    heads = [name for name, *_ in columns] + [f"{case}, to bare" for case, _ in compared]
    lines = [f"| | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
    for peer in peers:
        cells = [spread(figures(results, peer, case, name), digits) for _, case, name, digits in columns]
        cells += [spread(ratios(results, peer, "bare", case, figure), 2) for case, figure in compared]
        lines.append(f"| {TITLES.get(peer, peer)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def data(results: Results, cases: Mapping[str, Case], peers: Sequence[str], conditions: str) -> dict[str, Any]:
    """All figures of all cases, as medians and ranges, in what JSON can hold."""
    found: dict[str, Any] = {"conditions": conditions, "cases": {}}
    for name, case in cases.items():
        runs = {peer: results[peer, name] for peer in peers if (peer, name) in results}
        if runs:
            found["cases"][name] = _case_data(name, case, runs, results)
    return found


def _case_data(
    name: str, case: Case, found: Mapping[str, Sequence[Mapping[str, float]]], results: Results
) -> dict[str, Any]:
    columns = list(next(iter(found.values()))[0])
    compared = next((column for column in COMPARED if column in columns), None)
    pairs = [
        (peer, other)
        for peer in found
        for other in found
        if peer != other and (other == "bare" or (peer == "relay" and other.startswith("relay@")))
    ]
    return {
        "title": case.title,
        "peers": {
            peer: {column: _of([run[column] for run in runs]) for column in columns} for peer, runs in found.items()
        },
        "ratios": {
            f"{compared} of {peer} to {other}": _of(ratios(results, peer, other, name, compared))
            for peer, other in pairs
            if compared
        },
    }


def case_table(name: str, case: Mapping[str, Any]) -> str:
    """All figures of one case, of its data."""
    peers = case["peers"]
    columns = [column for column in next(iter(peers.values())) if column != HARNESS_BOUND]
    lines = [f"### {name}: {case['title']}\n", f"| | {' | '.join(columns)} | |", f"|---{'|---' * (len(columns) + 1)}|"]
    for peer, found in peers.items():
        bound = "harness-bound" if found.get(HARNESS_BOUND, [0, 0, 0])[2] else ""
        lines.append(f"| {peer} | {' | '.join(shown(found[column], 2) for column in columns)} | {bound} |")
    lines += [f"\n{what}: {shown(values, 3)}" for what, values in case["ratios"].items()]
    return "\n".join(lines)


def case_tables(page: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    """The cases of some data, or those of these names."""
    cases = {name: case for name, case in page["cases"].items() if not names or name in names}
    return "\n\n".join(case_table(name, case) for name, case in cases.items())


def show(file: Path, names: Sequence[str]) -> str:
    """The tables of a data file that `data` made. Raises SystemExit where it has none of these cases."""
    page = json.loads(file.read_text(encoding="utf-8"))
    unknown = [name for name in names if name not in page["cases"]]
    if unknown:
        raise SystemExit(f"{file} has no case {', '.join(unknown)}; it has {', '.join(page['cases'])}")
    return f"{page['conditions']}\n\n{case_tables(page, names)}"


def figures(results: Results, peer: str, case: str, name: str) -> list[float]:
    return [run[name] for run in results.get((peer, case), [])]


def ratios(results: Results, peer: str, other: str, case: str, name: str) -> list[float]:
    """Round by round."""
    pairs = zip(figures(results, peer, case, name), figures(results, other, case, name), strict=False)
    return [one / two for one, two in pairs]


def spread(values: Sequence[float], digits: int) -> str:
    """The median and, of several, the range."""
    return shown(_of(values), digits) if values else ""


def _of(values: Sequence[float]) -> Spread:
    every = (statistics.median(values), min(values), max(values)) if values else ()
    return [round(each, 4) if math.isfinite(each) else None for each in every]


def shown(values: Spread, digits: int) -> str:
    if not values:
        return ""
    median, low, high = ("none" if each is None else f"{each:,.{digits}f}" for each in values)
    return median if low == high else f"{median} [{low} .. {high}]"
