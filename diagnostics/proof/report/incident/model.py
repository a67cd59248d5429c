"""The content of a report, independent of its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from ....analysis.profile import Frame, Profile
from ....analysis.units import format_percent, format_value
from ....analysis.views import top

__all__ = ["Curve", "Flame", "Incident", "Plot", "ReportTable", "Statement", "Tone", "sites"]

_SITES = 10
# Lines with less than this share of the total are left out.
_LEAST_SHARE = 0.005


class Tone(StrEnum):
    """The meaning of a statement or curve: decides its colour, and is never conveyed by the colour alone."""

    BAD = "bad"
    GOOD = "good"
    OPEN = "open"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Statement:
    """A word in large letters (LEAK, 12 MiB) and its explanation."""

    tone: Tone
    word: str
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """Readings over time, (seconds, bytes), in `pieces`, between which there are no readings."""

    name: str
    tone: Tone
    pieces: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves with one time axis; `note` explains the readings."""

    title: str
    curves: tuple[Curve, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows of text; the columns in `left` are words, the others numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True)
class Flame:
    """A flame graph; with `before` a differential one. `value`: the index of the drawn sample type."""

    title: str
    profile: Profile
    before: Profile | None = None
    value: int = 0


@dataclass(frozen=True)
class Incident:
    """A whole report. `when`: seconds since the epoch; `commands`: to repeat it, or as a next step.

    `tables` are the evidence, shown before the flame graphs; `context` are the circumstances, shown after them.
    """

    title: str
    when: float
    seconds: float
    lead: str
    statements: tuple[Statement, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    flames: tuple[Flame, ...] = ()
    context: tuple[ReportTable, ...] = ()
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()


def _place(frame: Frame) -> str:
    place = f"{frame.file}:{frame.line}" if frame.file else ""
    return f"{frame.function} ({place})" if frame.function and place else frame.function or place


def sites(title: str, profile: Profile, value: int = 0, source: Callable[[Frame], str] | None = None) -> ReportTable:
    """The lines under which most is held, innermost frame first; with their text, where `source` returns it."""
    largest = top(profile, value, by="line")
    least = largest.whole * _LEAST_SHARE
    unit = largest.value_type.unit
    rows = tuple(
        (
            _place(row.frame),
            format_value(row.flat, unit),
            format_percent(row.flat, largest.whole),
            *(() if source is None else (source(row.frame),)),
        )
        for row in largest.rows[:_SITES]
        if abs(row.flat) > least
    )
    if source is None:
        return ReportTable(title, ("line", "held", "share"), rows)
    return ReportTable(title, ("line", "held", "share", "source"), rows, frozenset({0, 3}))
