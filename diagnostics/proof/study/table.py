"""A study's results so far, as a table for people and as JSON. Pure: results in, text out."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...analysis.decision import Decision
from ..scenario import FIXED
from .journal import too_busy
from .subjects import SUBJECTS

__all__ = ["Summary", "markdown", "period", "summaries", "to_json"]

_ACCUSED = (Decision.LEAK, Decision.UNBOUNDED)


@dataclass
class Summary:
    """All runs of one subject.

    decisions   side -> count of each decision
    nearest     side -> the mean nearest to the least growth, as a multiple of it: for the broken app the smallest of its
                accusing measure, for others the largest of any measure
    seconds     duration of each experiment
    too_busy    number of runs that failed because the machine was too busy; they are run again
    """

    name: str
    accusable: bool
    decisions: dict[str, Counter[str]] = field(default_factory=dict)
    nearest: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    too_busy: int = 0

    @property
    def runs(self) -> int:
        return len(self.seconds) + len(self.failures)

    @property
    def right(self) -> bool:
        """Whether every run was right: the expected decisions, or for a well-behaved service no accusation."""
        if self.failures:
            return False
        if self.accusable:
            expected = SUBJECTS[self.name].scenario.expected
            return all(set(counts) <= {str(expected[side])} for side, counts in self.decisions.items())
        return not any(counts[decision] for counts in self.decisions.values() for decision in _ACCUSED)


def summaries(results: Iterable[Mapping[str, Any]]) -> list[Summary]:
    """One for each subject that has a result, in the order of `SUBJECTS`; results of unknown subjects are left out."""
    by_name: dict[str, Summary] = {}
    for result in results:
        name = result["name"]
        if name not in SUBJECTS:
            continue
        summary = by_name.setdefault(name, Summary(name, SUBJECTS[name].accusable))
        if too_busy(result):
            summary.too_busy += 1
            continue
        if "failure" in result:
            summary.failures.append(result["failure"]["message"])
            continue
        summary.seconds.append(result["seconds"])
        for side, judged in result["sides"].items():
            summary.decisions.setdefault(side, Counter())[judged["decision"]] += 1
            shares = [interval["mean"] / judged["least"][measure] for measure, interval in judged["intervals"].items()]
            # An accusation needs one measure, the largest; an acquittal needs all of them.
            summary.nearest.setdefault(side, []).append(max(shares))
    return [by_name[name] for name in SUBJECTS if name in by_name]


def to_json(subjects: Iterable[Summary]) -> list[dict[str, Any]]:
    return [
        {
            "name": summary.name,
            "accusable": summary.accusable,
            "runs": summary.runs,
            "right": summary.right,
            "decisions": {side: dict(counts) for side, counts in summary.decisions.items()},
            "mean_over_least": summary.nearest,
            "seconds": summary.seconds,
            "failures": summary.failures,
            "too_busy": summary.too_busy,
        }
        for summary in subjects
    ]


def markdown(subjects: Iterable[Summary]) -> str:
    """Two tables: scenarios, which must be decided the same way each time, and services that must not be accused."""
    known = list(subjects)
    lines = [
        "| scenario | runs | broken | at least, times the least growth | fixed | at most | seconds | same each time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in (summary for summary in known if summary.accusable):
        broken = next((side for side in one.decisions if side != FIXED), "")
        cells = [
            _decisions(one, broken),
            _share(min(one.nearest.get(broken, []), default=None)),
            _decisions(one, FIXED),
            _share(max(one.nearest.get(FIXED, []), default=None)),
        ]
        lines.append(f"| {one.name} | {one.runs} | {' | '.join(cells)} | {_seconds(one)} | {_answer(one)} |")
    lines += [
        "",
        "| well-behaved service | runs | decisions | accused | largest mean, times the least growth | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for one in (summary for summary in known if not summary.accusable):
        counts = one.decisions.get(FIXED, Counter())
        accused = sum(counts[decision] for decision in _ACCUSED)
        largest = _share(max(one.nearest.get(FIXED, []), default=None))
        lines.append(
            f"| {one.name} | {one.runs} | {_decisions(one, FIXED)} | {accused} | {largest} | {_seconds(one)} |"
        )
    failures = [f"{one.name}: {failure}" for one in known for failure in one.failures]
    if failures:
        lines += ["", "Failed:", "", *map(_item, failures)]
    waiting = [f"{one.name} {one.too_busy}" for one in known if one.too_busy]
    if waiting:
        lines += ["", f"Times that the machine was too busy for a run, which was then run again: {', '.join(waiting)}."]
    return "\n".join(lines) + "\n"


def period(results: Iterable[Mapping[str, Any]]) -> str:
    """A sentence with the first and last time of the results, and the machine's load."""
    known = list(results)
    if not known:
        return "no result yet"
    days = [time.strftime("%Y-%m-%d %H:%M", time.gmtime(result["ended"])) for result in (known[0], known[-1])]
    loads = [result["load_average"] for result in known]
    return f"{days[0]} to {days[1]} UTC, load average {min(loads):.1f} to {max(loads):.1f}"


def _decisions(summary: Summary, side: str) -> str:
    counts = summary.decisions.get(side, Counter())
    return ", ".join(f"{count} {decision}" for decision, count in counts.most_common()) or "none"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def _seconds(summary: Summary) -> str:
    return f"{statistics.median(summary.seconds):.0f}" if summary.seconds else ""


def _answer(summary: Summary) -> str:
    return "yes" if summary.right else "no"


def _item(text: str) -> str:
    return "- " + " ".join(text.split())
