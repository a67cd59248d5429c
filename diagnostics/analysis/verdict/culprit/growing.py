"""The line of code that what grows was allocated by, from the live heap: known without a capture.

The law of this file: a line is named only where the whole interval of its gain lies above zero and above half of what memory
gained in the same time, and where it gained in each third of that time. What it names has so caused most of the growth, and no
step or chance of sampling looks like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...lines.growth import History, LineGrowth, total
from ...lines.lives import life_of, pooled
from ...units import format_value
from ..readings import MOST, Evidence, Readings

__all__ = ["Grower", "grower", "grower_since"]


@dataclass(frozen=True, slots=True)
class Grower:
    """A line that is named for a growth.

    share      of that growth, as estimated
    finished   streams that finished in the same time; None where nobody counts them
    """

    row: LineGrowth
    share: float
    finished: float | None = None

    @property
    def per_stream(self) -> tuple[float, float, float] | None:
        return self.row.per(self.finished) if self.finished else None

    @property
    def says(self) -> str:
        row = self.row
        low, middle, high = map(_bytes, row.per_hour)
        inside = f" (in {row.inside})" if row.inside else ""
        gained = f"holds {_bytes(row.grown)} more than {row.seconds:.0f} s ago"
        if row.lives > 1:
            gained = f"gained {_bytes(row.grown)} in {row.seconds:.0f} s of {row.lives} processes, one after the other"
        text = (
            f"In the live heap {row.name}{inside} {gained} "
            f"(95 % sure: {_bytes(row.low)} to {_bytes(row.high)}), {middle} an hour ({low} to {high})"
        )
        if self.per_stream:
            low, middle, high = map(_bytes, self.per_stream)
            text += f", {middle} for each finished stream ({low} to {high})"
        return f"{text}."

    def evidence(self) -> Evidence:
        low, high = _bytes(self.row.low), _bytes(self.row.high)
        return Evidence(f"of it allocated by {self.row.name} (95 % sure: {low} to {high})", self.row.grown, "bytes")

    def to_json(self) -> dict[str, Any]:
        row, each = self.row, self.per_stream
        return {
            **row.to_json(),
            "share": self.share,
            "per_stream": None if each is None else dict(zip(("low", "mid", "high"), each, strict=True)),
        }


def grower_since(history: History, since: float, per_second: float) -> Grower | None:
    """The line behind a growth of so many bytes a second that was judged from `since` (wall clock) on; None where none is."""
    gains = history.since(since)
    return None if gains is None else _named(gains[1], per_second)


def _named(rows: Sequence[LineGrowth], per_second: float) -> Grower | None:
    for row in rows if per_second > 0 else ():
        expected = per_second * row.seconds
        if row.grows and row.low >= MOST * expected:
            return Grower(row, row.grown / expected)
    return None


def grower(readings: Readings, since: float | None, per_second: float) -> tuple[Grower | None, Evidence | None]:
    """The line behind a growth that a verdict is about; without one, what all lines of the live heap gained together.

    Both are None where there are no looks at a live heap since then. Of a worker that is recycled it is what lines gained
    within its lives, as its growth is.
    """
    rows = _of_lives(readings) if readings.recycled else _of_one(readings, since)
    if not rows:
        return None, None
    line = _named(rows, per_second)
    if line is not None:
        line = replace(line, finished=_finished(readings, line.row.seconds))
        return line, line.evidence()
    low, middle, high = total(rows)
    of = f" of {rows[0].lives} processes" if rows[0].lives > 1 else ""
    words = (
        f"gained in the live heap, all lines, within {rows[0].seconds:.0f} s{of} "
        f"(95 % sure: {_bytes(low)} to {_bytes(high)})"
    )
    return None, Evidence(words, middle, "bytes")


def _of_one(readings: Readings, since: float | None) -> Sequence[LineGrowth]:
    gains = readings.lines.since(since) if readings.lines is not None and since is not None else None
    return () if gains is None else gains[1]


def _of_lives(readings: Readings) -> Sequence[LineGrowth]:
    earlier = [life.lines for life in readings.lives if life.lines is not None]
    present = None if readings.lines is None else life_of(readings.lines, readings.since)
    return pooled(earlier, present) if earlier else ()


def _finished(readings: Readings, seconds: float) -> float | None:
    """How many streams finished in the last `seconds`, or in as many of a recycled worker's lives, at the pace of all of them;
    None where nobody counts them."""
    if readings.recycled:
        counted = [(life.seconds, life.finished) for life in readings.lives if life.finished is not None]
        lived = sum(length for length, _ in counted)
        return seconds * sum(finished for _, finished in counted) / lived if lived > 0 else None
    points = readings.series.get("streams_finished_total", ()) if readings.state == "answering" else ()
    inside = [value for time, value in points if time >= points[-1][0] - seconds]
    return inside[-1] - inside[0] if inside else None


def _bytes(value: float) -> str:
    return format_value(round(value), "bytes")
