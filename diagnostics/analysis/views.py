"""Tables of a profile: the largest functions or lines (top), and annotated source lines (list).

`flat` is the value of samples in which a frame is the leaf. `cumulative` is that of samples with the frame anywhere on the
stack; a recursive function is counted once. Percentages are of the sum of all absolute values: the total of an ordinary
profile, all changes of a difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from .profile import Frame, Profile, Sample, ValueType
from .sampling import Uncertainty, rate_of, sizes_index

__all__ = ["Function", "Source", "SourceLine", "Top", "TopRow", "listing", "top"]

# A file's name in a profile -> its lines, or None where it cannot be read. The caller's: analysis opens no files.
Source = Callable[[str], Sequence[str] | None]

CONTEXT_LINES = 3


@dataclass(frozen=True, slots=True)
class TopRow:
    """A function (then `frame.line` is 0) or one line of it.

    interval   of a sampled profile: the 95 % interval of the flat value; None where everything was counted
    """

    frame: Frame
    flat: int
    cumulative: int
    interval: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Top:
    """All rows, sorted; `whole`: the value that is 100 %."""

    value_type: ValueType
    rows: tuple[TopRow, ...]
    total: int
    whole: int


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A source line; `text` is None where the source cannot be read."""

    number: int
    flat: int
    cumulative: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Function:
    """A function with its lines: those with values and a few around each."""

    name: str
    file: str
    flat: int
    cumulative: int
    lines: tuple[SourceLine, ...]


def top(
    profile: Profile, value: int = 0, *, by: Literal["function", "line"] = "function", cumulative: bool = False
) -> Top:
    """Every function, or every line, with its values; sorted by flat or by `cumulative`, largest first."""
    flat: dict[Frame, int] = {}
    whole_stack: dict[Frame, int] = {}
    key = _of_function if by == "function" else _of_line
    keys: dict[Frame, Frame] = {}
    total = whole = 0
    doubts = _Doubts(profile, value)
    for sample in profile.samples:
        amount = sample.values[value]
        total += amount
        whole += abs(amount)
        seen: set[Frame] = set()
        for depth, frame in enumerate(sample.stack):
            name = keys.get(frame)
            if name is None:
                name = keys[frame] = key(frame)
            if depth == 0:
                flat[name] = flat.get(name, 0) + amount
                doubts.add(name, sample)
            if name not in seen:
                seen.add(name)
                whole_stack[name] = whole_stack.get(name, 0) + amount
    rows = [TopRow(frame, flat.get(frame, 0), amount, doubts.interval(frame)) for frame, amount in whole_stack.items()]
    if cumulative:
        rows.sort(key=lambda row: (-abs(row.cumulative), -abs(row.flat), row.frame))
    else:
        rows.sort(key=lambda row: (-abs(row.flat), -abs(row.cumulative), row.frame))
    return Top(profile.sample_types[value], tuple(rows), total, whole)


class _Doubts:
    """The intervals of a sampled profile's rows."""

    def __init__(self, profile: Profile, value: int) -> None:
        # A difference of two profiles has no interval: the unchanged samples of both are unknown.
        self._rate = None if "difference" in profile.meta else rate_of(profile)
        self._value, self._other = value, sizes_index(profile, value)
        self._blocks = profile.sample_types[value].unit == "count"
        if self._blocks and self._other is None:  # blocks of unknown size have no interval
            self._rate = None
        self._rows: dict[Frame, Uncertainty] = {}

    def add(self, name: Frame, sample: Sample) -> None:
        amount = sample.values[self._value]
        if self._rate is None or amount == 0:
            return
        other = 0 if self._other is None else sample.values[self._other]
        held, count = (other, amount) if self._blocks else (amount, other)
        self._rows.setdefault(name, Uncertainty()).add(
            amount, held / count if count else 0.0, self._rate, blocks=self._blocks
        )

    def interval(self, name: Frame) -> tuple[int, int] | None:
        uncertainty = self._rows.get(name)
        return None if uncertainty is None else uncertainty.interval()


def listing(profile: Profile, pattern: str, source: Source, value: int = 0) -> tuple[Function, ...]:
    """The functions whose name matches the regular expression `pattern`, line by line; largest cumulative value first.

    Raises UsageError where `pattern` does not compile or no function matches.
    """
    try:
        search = re.compile(pattern).search
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}") from error
    functions = [row for row in top(profile, value, cumulative=True).rows if search(row.frame.function)]
    if not functions:
        raise UsageError(f"no function matches {pattern!r}", remedy="`diagnostics top` shows the names there are")
    lines: dict[Frame, list[TopRow]] = {}
    for row in top(profile, value, by="line").rows:
        lines.setdefault(_of_function(row.frame), []).append(row)
    return tuple(
        Function(
            row.frame.function,
            row.frame.file,
            row.flat,
            row.cumulative,
            tuple(_lines(lines[row.frame], source(row.frame.file))),
        )
        for row in functions
    )


def _lines(rows: Sequence[TopRow], source: Sequence[str] | None) -> list[SourceLine]:
    amounts = {row.frame.line: row for row in rows}
    numbers = set(amounts)
    if source is not None:
        for line in amounts:
            # Line 0 means unknown, and a source that has changed since may be shorter.
            if 1 <= line <= len(source):
                numbers.update(range(max(1, line - CONTEXT_LINES), min(len(source), line + CONTEXT_LINES) + 1))
    lines = []
    for number in sorted(numbers):
        row = amounts.get(number)
        text = source[number - 1] if source is not None and 1 <= number <= len(source) else None
        lines.append(SourceLine(number, row.flat if row else 0, row.cumulative if row else 0, text))
    return lines


def _of_function(frame: Frame) -> Frame:
    return Frame(frame.function, frame.file, 0) if frame.line else frame


def _of_line(frame: Frame) -> Frame:
    return frame
