"""The line of code that what grows was allocated by, from the live heap: known without a capture.

The law of this file: a line is named only where the whole interval of its gain lies above zero and above half of what memory
gained in the same time, and where it gained in each third of that time. What it names has so caused most of the growth, and no
step or chance of sampling looks like it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...lines.growth import History, LineGrowth, total
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
        text = (
            f"In the live heap {row.name}{inside} holds {_bytes(row.grown)} more than {row.seconds:.0f} s ago "
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
    if gains is None or per_second <= 0:
        return None
    _, rows = gains
    for row in rows:
        expected = per_second * row.seconds
        if row.grows and row.low >= MOST * expected:
            return Grower(row, row.grown / expected)
    return None


def grower(readings: Readings, since: float | None, per_second: float) -> tuple[Grower | None, Evidence | None]:
    """The line behind a growth that a verdict is about; without one, what all lines of the live heap gained together.

    Both are None where there are no looks at a live heap since then.
    """
    if readings.lines is None or readings.recycled or since is None:
        return None, None
    line = grower_since(readings.lines, since, per_second)
    if line is not None:
        line = replace(line, finished=_finished(readings, line.row.seconds))
        return line, line.evidence()
    gains = readings.lines.since(since)
    if gains is None:
        return None, None
    first, rows = gains
    low, middle, high = total(rows)
    seconds = readings.lines.now.at - first.at
    words = f"gained in the live heap, all lines, within {seconds:.0f} s (95 % sure: {_bytes(low)} to {_bytes(high)})"
    return None, Evidence(words, middle, "bytes")


def _finished(readings: Readings, seconds: float) -> float | None:
    """How many streams finished in the last `seconds`; None where nobody counts them."""
    points = readings.series.get("streams_finished_total", ()) if readings.state == "answering" else ()
    inside = [value for time, value in points if time >= points[-1][0] - seconds]
    return inside[-1] - inside[0] if inside else None


def _bytes(value: float) -> str:
    return format_value(round(value), "bytes")
