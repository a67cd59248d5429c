"""What was run so far of all seeds: record.json, committed, an entry for each day and each state of the code; and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests import counting
from tests.fuzz.tally import code, today

from .seeds import Outcome

__all__ = ["FILE", "MARKS", "PLANS", "Record", "table"]

FILE = Path(__file__).parent / "record.json"
MARKS = ("<!-- replicas: written by make replicas -->", "<!-- end of replicas -->")
# Counts up where a seed decides something else than before: what was run until then counts no more.
PLANS = 2
AIM = 1000
WRONG_KEPT = 300


class Record:
    """The entries of a file, kept after each seed."""

    def __init__(self, file: Path = FILE) -> None:
        self._file = file
        self.entries = counting.read(file)

    def done(self) -> set[int]:
        """The seeds that were run."""
        return {seed for entry in _present(self.entries) for seed in entry["seeds"]}

    def add(self, outcome: Outcome) -> None:
        """One seed, which is written at once: whole or not at all."""
        same = {"date": today(), "code": code(), "plans": PLANS}
        empty = {"seeds": [], "streams": 0, "connections": 0, "paid": 0, "counts": {}, "wrong": []}
        entry = counting.entry(self.entries, same, empty)
        entry["seeds"] = sorted([*entry["seeds"], outcome.seed])
        for name in ("streams", "connections", "paid"):
            entry[name] += getattr(outcome, name)
        entry["counts"] = dict(sorted((Counter(entry["counts"]) + outcome.counts).items()))
        entry["wrong"] += [[outcome.seed, wrong[:WRONG_KEPT]] for wrong in outcome.wrong[:1]]
        counting.write(self._file, self.entries)


def table(entries: Iterable[dict[str, Any]]) -> str:
    """All entries together, in Markdown: a row for each way in which streams ended."""
    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    dates, wrong = set(), 0
    for entry in _present(entries):
        counts.update(entry["counts"])
        sums.update({name: entry[name] for name in ("streams", "connections", "paid")}, seeds=len(entry["seeds"]))
        dates.add(entry["date"])
        wrong += len(entry["wrong"])
    words = {
        "whole": "every event once, in order, and the upstream's text",
        "stream_broken": "its relay was killed: every event up to one, once and in order, and `stream_broken`",
        "stream_not_found": "its relay was killed before it had copied anything, and `stream_not_found`",
        "WRONG": "anything else",
    }
    ran = f"{sums['seeds']:,} seeds of the {AIM:,} aimed at, with {sums['streams']:,} streams"
    return "\n".join(
        (
            f"{ran} over {sums['connections']:,} connections, from {min(dates, default='')} to {max(dates, default='')}.",
            f"The upstream was asked for {sums['paid']:,} answers. Seeds after which not all was as it should be: {wrong}.",
            "",
            "| the client got | streams |",
            "|---|---|",
            *(f"| {text} | {counts[name]:,} |" for name, text in words.items()),
        )
    )


def _present(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["plans"] == PLANS]
