"""The tables of docs/museum.md, made from the results."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from ..services.environments import cache_folder
from .judged import RIGHT, WRONG, Judged, judge
from .others import TOOLS, Shown
from .table import FIXED, HERE, LEAKY, Side
from .visit import Visit

ROOT = HERE.parent.parent
BEGIN, END = "<!-- museum: begin -->", "<!-- museum: end -->"
_LONGEST = 260


@dataclass(frozen=True)
class Result:
    """What came of one side: `growth` alone, by the kernel, in words; `visit` None where it did not run, and `error` why not.
    `load`: the machine's one-minute load average before and after. `older`: the code has changed since."""

    side: Side
    growth: str
    visit: Visit | None
    error: str
    versions: Mapping[str, str]
    python: str
    date: str
    load: tuple[float, float]
    older: bool = False

    @property
    def judged(self) -> Judged | None:
        """By the entry as it is now: what was read is kept, not what was thought of it."""
        return judge(self.side, self.visit) if self.visit else None

    def to_json(self) -> dict[str, Any]:
        return {
            "growth": self.growth, "visit": self.visit.to_json() if self.visit else None, "error": self.error,
            "versions": dict(self.versions), "python": self.python, "date": self.date, "load": list(self.load),
        }  # fmt: skip

    @classmethod
    def from_json(cls, side: Side, told: dict[str, Any], *, older: bool = False) -> Result:
        visit = Visit.from_json(told["visit"]) if told["visit"] and told["visit"]["looks"] else None
        return cls(
            side, told["growth"], visit, told["error"], told["versions"], told["python"], told["date"], tuple(told["load"]),
            older,
        )  # fmt: skip


def marked(page: str, results: Sequence[Result], others: Mapping[str, Sequence[Shown]] = MappingProxyType({})) -> str:
    """`page` with everything between its two markers made anew. others: what other tools showed, by exhibit."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{told(results, others)}\n{END}{after}"


def told(results: Sequence[Result], others: Mapping[str, Sequence[Shown]] = MappingProxyType({})) -> str:
    """Everything that is told of `results`, as Markdown."""
    if all(one.older for one in results):  # then the summary says it, and not each line
        said, results = "All of it is of older code than this.", [replace(one, older=False) for one in results]
    else:
        said = ""
    leaky = [one for one in results if one.side.side == LEAKY]
    calm = [one for one in results if one.side.side != LEAKY]
    parts = [
        _summary(leaky, calm, results),
        said,
        _leaks(leaky),
        _calm(calm),
        _beside_others(leaky, others),
        _details(leaky + calm),
    ]
    return "\n\n".join(part for part in parts if part)


def _summary(leaky: Sequence[Result], others: Sequence[Result], results: Sequence[Result]) -> str:
    ran = [one.judged for one in leaky if one.judged]
    calm = [one.judged for one in others if one.judged]
    right = [one for one in ran if one.outcome == RIGHT]
    named = [one for one in ran if one.rank is not None]
    accusations = sum(one.alarm_seconds is not None for one in [*ran, *calm])
    times = [one.named_seconds for one in right if one.named_seconds is not None]
    dates, loads = [one.date for one in results], [load for one in results for load in one.load]
    failed = [one.side.name for one in results if not one.judged]
    machine = f"Linux {platform.release()}, {platform.machine()}"
    load = f"{os.cpu_count()} cores, load average {min(loads):.1f} to {max(loads):.1f}"
    lines = [
        f"Measured from {min(dates)} to {max(dates)} UTC; {load}, {machine}.",
        "",
        f"- recall: {len(right)} of {len(ran)} leaks with the right kind and the culprit among the first three",
        f"- the culprit among the first three, whatever the kind: {len(named)} of {len(ran)}",
        f"- precision: {len(right)} of {accusations} accusations (of medium or high confidence) are right",
        f"- controls and healthy services accused: {sum(one.outcome == WRONG for one in calm)} of {len(calm)}",
    ]
    if times:
        spent = f"median {median(times):.0f} s, longest {max(times):.0f} s"
        lines.append(f"- time to the right line, from the start of the work: {spent}")
    if failed:
        lines.append(f"- did not run: {', '.join(failed)}")
    return "\n".join(lines)


def _leaks(results: Sequence[Result]) -> str:
    head = "| exhibit | kind | stays, without us | verdict | culprit | alarm / right line after |\n|---|---|---|---|---|---|"
    return "\n".join([head, *map(_leak, results)])


def _leak(one: Result) -> str:
    judged = one.judged
    cells = [_title(one), one.side.kind, one.growth]
    if judged is None:
        return _row([*cells, f"did not run: {one.error}", "", ""])
    rank = f"as no. {judged.rank}" if judged.rank else "no"
    kind = judged.kind if judged.kind_right else f"**{judged.kind}**"
    return _row(
        [
            *cells,
            kind,
            rank if judged.rank else "**no**",
            f"{_time(judged.alarm_seconds)} / {_time(judged.named_seconds)}",
        ]
    )


def _calm(results: Sequence[Result]) -> str:
    head = "| not a leak | looks suspicious by | grows, without us | verdict |\n|---|---|---|---|"
    rows = []
    for one in results:
        suspicious = "the control of the exhibit above" if one.side.side == FIXED else one.side.kind
        verdict = "did not run: " + one.error if one.judged is None else one.judged.kind
        if one.judged and one.judged.outcome == WRONG:
            verdict = f"**accused after {_time(one.judged.alarm_seconds)}: {verdict}**"
        rows.append(_row([_title(one), suspicious, one.growth, verdict]))
    return "\n".join([head, *rows])


def _beside_others(leaky: Sequence[Result], others: Mapping[str, Sequence[Shown]]) -> str:
    """The culprit's place among the first three lines, and after how many seconds, of each tool at the same work."""
    rows = []
    for one in leaky:
        by_tool = {shown.tool: shown for shown in others.get(one.side.exhibit, ())}
        if not by_tool or one.judged is None:
            continue
        ours = _place(one.judged.rank, one.judged.named_seconds)
        theirs = [_place(shown.rank, shown.seconds) if (shown := by_tool.get(tool)) else "not run" for tool in TOOLS]
        rows.append(_row([one.side.exhibit, ours, *theirs]))
    if not rows:
        return ""
    head = "\n".join(["| exhibit | the verdict | " + " | ".join(TOOLS) + " |", "|---" * (len(TOOLS) + 2) + "|"])
    return "\n".join(["### Beside other tools\n", head, *rows])


def _place(rank: int | None, seconds: float | None) -> str:
    return "no" if rank is None else f"as no. {rank}, {_time(seconds)}"


def _details(results: Sequence[Result]) -> str:
    lines = ["### What was read"]
    for one in results:
        if one.visit is None or not one.visit.looks:
            continue
        said = [f"{look.seconds:.0f} s: {look.word} ({look.confidence}): {look.says}" for look in one.visit.looks]
        lines.append(f"\n**{one.side.name}**, {one.date} UTC, load {one.load[0]:.1f} to {one.load[1]:.1f}\n")
        lines += [f"- {_cell(line[:_LONGEST])}" for line in said]
        if one.visit.command:
            lines.append(f"- typed `{one.visit.command}`, done at {_time(one.visit.typed_seconds)}")
        lines += [
            f"- read as no. {number}: {_cell(line[:_LONGEST])}"
            for number, line in enumerate(one.visit.shown.shown(), 1)
        ]
    return "\n".join(lines)


def _title(one: Result) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
    older = " (older code)" if one.older else ""
    report = f" ({one.side.report})" if one.side.report and one.side.side == LEAKY else ""
    pinned = f" {versions};" if versions else ""
    return f"**{one.side.title}**{report}{pinned} Python {one.python}{older}"


def _time(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table; where the suite and its cache are on this machine is nobody's business."""
    for place, name in ((cache_folder(), "CACHE"), (ROOT, "CHECKOUT"), (Path.home(), "~")):
        text = text.replace(str(place), name)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("http://", "http:&#47;&#47;")
