"""What a report holds, before it has a form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from ....analysis.profile import Frame, Profile
from ....analysis.units import format_percent, format_value
from ....analysis.views import top

__all__ = ["Curve", "Flame", "Incident", "Plot", "Statement", "Table", "Tone", "sites"]

_SITES = 10
# A line that holds less than this share of everything explains nothing.
_LEAST_SHARE = 0.005


class Tone(StrEnum):
    """What a statement or a curve means to the reader: it decides the colour, and never alone says anything."""

    BAD = "bad"
    GOOD = "good"
    OPEN = "open"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Statement:
    """A word in large letters (LEAK, 12 MiB) and what it is about."""

    tone: Tone
    word: str
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """Readings over time in `pieces`, between which nothing was read: (seconds, bytes) each."""

    name: str
    tone: Tone
    pieces: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over the same seconds; `note` says what is read and when."""

    title: str
    curves: tuple[Curve, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the columns in `left` are words, the others numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True)
class Flame:
    """A flame graph; with `before` a differential one. `value` is the index of the sample type that is drawn."""

    title: str
    profile: Profile
    before: Profile | None = None
    value: int = 0


@dataclass(frozen=True)
class Incident:
    """A whole report. `when` is seconds since the epoch; `commands` run it again, or go on from here.

    `tables` are the evidence and stand before the flame graphs, `context` is how it came about and stands after them.
    """

    title: str
    when: float
    seconds: float
    lead: str
    statements: tuple[Statement, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    flames: tuple[Flame, ...] = ()
    context: tuple[Table, ...] = ()
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()


def _place(frame: Frame) -> str:
    place = f"{frame.file}:{frame.line}" if frame.file else ""
    return f"{frame.function} ({place})" if frame.function and place else frame.function or place


def sites(title: str, profile: Profile, value: int = 0, source: Callable[[Frame], str] | None = None) -> Table:
    """The lines under which most is held, innermost frame first; with their text, where there is a `source` of it."""
    found = top(profile, value, by="line")
    least = found.whole * _LEAST_SHARE
    unit = found.value_type.unit
    rows = tuple(
        (
            _place(row.frame),
            format_value(row.flat, unit),
            format_percent(row.flat, found.whole),
            *(() if source is None else (source(row.frame),)),
        )
        for row in found.rows[:_SITES]
        if abs(row.flat) > least
    )
    if source is None:
        return Table(title, ("line", "held", "share"), rows)
    return Table(title, ("line", "held", "share", "source"), rows, frozenset({0, 3}))
