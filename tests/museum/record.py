"""What came of each side's last visit, in a file that is kept with the code, and how often each verdict was right by it.

`report/museum` has what was read, and stays on the machine that read it; here is what was thought of it. The table of
docs/verdict.md is made of this alone, so that it can be made anew anywhere: `python -m tests.museum --table`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from diagnostics.analysis.verdict.causes import CAUSES

from .judged import RIGHT
from .page import Result
from .table import HERE, LEAKY, Side

__all__ = ["FILE", "Record", "by_verdict", "marked", "read", "updated", "write"]

FILE = HERE / "results.json"
BEGIN, END = "<!-- museum: begin -->", "<!-- museum: end -->"
NOT_MEASURED = "not measured"
_HEAD = (
    "| verdict at the end | said | of leaks: rightly | with the culprit among the first three | of what is no leak: rightly | "
    "right at high confidence |"
)


@dataclass(frozen=True)
class Record:
    """One side's last visit. Fields are those of `Result` and `Judged`; `code`: a hash of the product and the exhibit as they
    were then, None where that was not noted."""

    name: str
    date: str
    load: tuple[float, float]
    code: str | None
    verdict: str
    confidence: str
    outcome: str
    kind_right: bool
    rank: int | None
    alarm_seconds: float | None
    named_seconds: float | None


def read(path: Path = FILE) -> list[Record]:
    return [Record(**{**told, "load": tuple(told["load"])}) for told in json.loads(path.read_text(encoding="utf-8"))]


def write(records: Iterable[Record], path: Path = FILE) -> None:
    """One line a side, so that a change shows what has changed."""
    lines = ",\n".join(f" {json.dumps(asdict(one))}" for one in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def updated(records: Iterable[Record], results: Iterable[tuple[Result, str]]) -> list[Record]:
    """`records` with those of `results`, each with the hash of its code, in the place of older ones of the same side."""
    latest = {one.name: one for one in records}
    for result, code in results:
        judged = result.judged
        word, _, confidence = judged.kind.partition(" ") if judged else ("", "", "")
        if judged is None or word not in CAUSES:  # it did not run, or nothing was said
            continue
        latest[result.side.name] = Record(
            result.side.name, result.date, (round(result.load[0], 1), round(result.load[1], 1)), code, word,
            confidence.strip("()"), judged.outcome, judged.kind_right, judged.rank, _whole(judged.alarm_seconds),
            _whole(judged.named_seconds),
        )  # fmt: skip
    return list(latest.values())


def _whole(seconds: float | None) -> float | None:
    return None if seconds is None else float(round(seconds))


def marked(page: str, records: Sequence[Record], sides: Mapping[str, Side]) -> str:
    """The page with the table between its markers made anew."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{by_verdict(records, sides)}\n{END}{after}"


def by_verdict(records: Sequence[Record], sides: Mapping[str, Side]) -> str:
    """Of each verdict how often a visit ended with it, on leaks and on what is none, and how often that was right.

    On a leak an alarm is right where the entry accepts it as the leak's kind, and anything that accuses nobody is wrong. On a
    control or a healthy service what accuses nobody is right.
    """
    known = [one for one in records if one.name in sides]
    dates, loads = [one.date for one in known], [load for one in known for load in one.load]
    leaks = sum(sides[one.name].side == LEAKY for one in known)
    said = (
        f"{leaks} leaks and {len(known) - leaks} controls and healthy services of {len(sides)} sides, each visited once, from "
        f"{min(dates)} to {max(dates)} UTC, load average "
        f"{min(loads):.1f} to {max(loads):.1f} on two cores:"
    )
    return "\n".join(
        [
            said,
            "",
            _HEAD,
            "|---" * 6 + "|",
            *(_row(word, [one for one in known if one.verdict == word], sides) for word in CAUSES),
        ]
    )


def _row(word: str, records: Sequence[Record], sides: Mapping[str, Side]) -> str:
    name = word.replace("_", "-")
    if not records:
        return f"| {name} | {NOT_MEASURED} | | | | |"
    of_leaks = [one for one in records if sides[one.name].side == LEAKY]
    calm = [one for one in records if sides[one.name].side != LEAKY]
    high = [one for one in records if one.confidence == "high"]
    cells = [
        str(len(records)),
        _of(sum(one.kind_right for one in of_leaks), of_leaks),
        _of(sum(one.rank is not None for one in of_leaks), of_leaks),
        _of(sum(one.outcome == RIGHT for one in calm), calm),
        _of(sum(one.kind_right for one in high), high),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _of(count: int, records: Sequence[Record]) -> str:
    return f"{count} of {len(records)}" if records else "none"
