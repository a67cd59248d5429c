"""The line of code that allocated most of what grew, by the last window of a tracer: memray's, or tracemalloc's.

A window shows what was allocated within it and is still held at its end. The line that has at least half of what memory gains
in such a time is named, and no other: that a line allocates is no fault. A tracer slows the service down, so that memory gains
less than else: half of all that the window shows is as good, if it is a quarter of that growth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...lines.frames import place_of
from ...profile import Frame
from ...units import format_value
from ..readings import LITTLE, MOST, Readings

__all__ = ["Line", "line_of"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line with `bytes` of `kind`'s window, in `blocks` of them.

    native   the function in C that they were allocated in, "" where that is not known
    caller   of a library's line, the line of the service's own code that it was called from, by name; "" as well
    """

    function: str
    file: str
    line: int
    bytes: int
    blocks: int
    native: str
    caller: str
    kind: str

    @property
    def name(self) -> str:
        """`parse (app.py:10)`, of an installed package `decode (json/decoder.py:337)`."""
        return place_of(Frame(self.function, self.file, self.line))

    @property
    def says(self) -> str:
        blocks = ""
        if self.blocks > 1:
            blocks = f" in {self.blocks:,} blocks of about {format_value(round(self.bytes / self.blocks), 'bytes')}"
        called = f", called from {self.caller}" if self.caller else ""
        within = f", in {self.native}" if self.native and self.file else ""
        return f"{format_value(self.bytes, 'bytes')}{blocks} were allocated by {self.name}{called}{within}"


def line_of(readings: Readings, slope: float, kinds: Sequence[str] = ("memray", "tracemalloc")) -> Line | None:
    """The line of the last window of these kinds, the first that has one, if it accounts for at least half of the growth.

    slope   bytes a second that memory gains
    """
    for kind in kinds:
        captured: Mapping[str, Any] = readings.captures.get(kind) or {}
        seconds, rows = captured.get("seconds"), captured.get("top") or ()
        if not seconds or captured.get("view") not in (None, "leaked"):
            continue
        first = next((row for row in rows if row.get("file") or row.get("native")), None)
        if first is not None and _enough(first["bytes"], slope * seconds, captured.get("total_bytes")):
            return Line(
                *_placed(first), int(first["bytes"]), int(first.get("count") or 0), str(first.get("native") or ""),
                place_of(Frame(*_placed(first["caller"]))) if first.get("caller") else "", kind,
            )  # fmt: skip
    return None


def _placed(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return str(row.get("function") or ""), str(row["file"]), int(row.get("line") or 0)


def _enough(held: int, growth: float, in_window: int | None) -> bool:
    """Whether a line that holds so much accounts for the growth in such a time; `in_window`: all that the window shows."""
    return held >= MOST * growth or (in_window is not None and held >= MOST * in_window and held >= LITTLE * growth)
