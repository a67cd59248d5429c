"""Profiles as plain text, for a terminal, a log or a code review. Every table lists what the profile does not cover."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..algebra import is_difference
from ..profile import Frame, Profile, Sample
from ..units import format_moment, format_percent, format_value, printable
from ..views import Function, Top

__all__ = ["heading", "location", "render_lines", "render_listing", "render_stacks", "render_top"]


def heading(profile: Profile, value: int = 0) -> str:
    """One line: the profile's kind, time, window, and its total of the sample type of index `value`."""
    kind = profile.sample_types[value]
    window = f", {profile.duration:g} s window" if profile.duration else ""
    ended = f", ended {format_moment(profile.time)}" if profile.time else ""
    total = format_value(profile.total(value), kind.unit, signed=is_difference(profile, value))
    count = len(profile.samples)
    stacks = "stack" if count == 1 else "stacks"
    return printable(f"{profile.kind}{window}{ended}: {kind.name} {total} in {count:,} {stacks}")


def location(frame: Frame) -> str:
    """`function file:line`, known parts only, with control characters escaped."""
    place = f"{frame.file}:{frame.line}" if frame.line else frame.file
    return printable(f"{frame.function} {place}".rstrip())


def render_top(profile: Profile, top: Top, count: int, value: int = 0) -> str:
    """The first `count` rows of `top` as a table, under the profile's heading."""
    signed = is_difference(profile, value)
    unit = top.value_type.unit
    largest = [row for row in top.rows if row.flat or row.cumulative][:count]
    sampled = any(row.interval for row in top.rows)
    rows = [("flat", *(("95 of 100 times within",) if sampled else ()), "flat%", "cum", "cum%", "where")]
    rows += [
        (
            format_value(row.flat, unit, signed=signed),
            *((_interval(row.interval, unit, signed=signed),) if sampled else ()),
            format_percent(row.flat, top.whole),
            format_value(row.cumulative, unit, signed=signed),
            format_percent(row.cumulative, top.whole),
            location(row.frame),
        )
        for row in largest
    ]
    lines = [heading(profile, value), *_table(rows)]
    if len(top.rows) > len(largest):
        lines.append(f"... and {len(top.rows) - len(largest):,} more")
    return "\n".join([*lines, *_notes(profile)]) + "\n"


def _interval(interval: tuple[int, int] | None, unit: str, *, signed: bool) -> str:
    return " to ".join(format_value(end, unit, signed=signed) for end in interval) if interval else ""


def render_listing(profile: Profile, functions: Sequence[Function], value: int = 0) -> str:
    """Source lines with their flat and cumulative values, function by function."""
    unit, signed = profile.sample_types[value].unit, is_difference(profile, value)

    def amount(number: int) -> str:
        return format_value(number, unit, signed=signed) if number else "."

    lines = [heading(profile, value)]
    for function in functions:
        lines.append("")
        lines.append(location(Frame(function.name, function.file, 0)))
        rows = [("flat", "cum", "line", "")]
        last = 0
        for line in function.lines:
            if last and line.number > last + 1:
                rows.append(("", "", "...", ""))
            last = line.number
            text = "(no source)" if line.text is None else printable(line.text.rstrip().expandtabs(4))
            rows.append((amount(line.flat), amount(line.cumulative), str(line.number), text))
        rows.append((amount(function.flat), amount(function.cumulative), "", "in all"))
        lines.extend(_table(rows))
    return "\n".join([*lines, *_notes(profile)]) + "\n"


def render_lines(name: str, profile: Profile) -> str:
    """One line for each stack, largest value first, leaf first: `2 @ wait app.py:3 < serve app.py:9`."""
    rows = [
        (*_amounts(profile, sample), "@ " + (" < ".join(map(location, sample.stack)) or "(no stack)") + _labels(sample))
        for sample in _by_first_value(profile)
    ]
    return "\n".join([f"{name} profile: {heading(profile)}", *_table(rows), *_notes(profile)]) + "\n"


def render_stacks(name: str, profile: Profile) -> str:
    """Each stack as a block of lines, leaf first, like Go's goroutine dump."""
    lines = [f"{name} profile: {heading(profile)}"]
    for number, sample in enumerate(_by_first_value(profile), 1):
        lines += ["", f"{name} {number} [{', '.join(_amounts(profile, sample))}]:{_labels(sample)}"]
        lines += [f"    {location(frame)}" for frame in sample.stack] or ["    (no stack)"]
    return "\n".join([*lines, *_notes(profile)]) + "\n"


def _by_first_value(profile: Profile) -> list[Sample]:
    return sorted(profile.samples, key=lambda sample: -sample.values[0] if sample.values else 0)


def _amounts(profile: Profile, sample: Sample) -> tuple[str, ...]:
    return tuple(
        format_value(value, kind.unit) for value, kind in zip(sample.values, profile.sample_types, strict=True)
    )


def _labels(sample: Sample) -> str:
    return "".join(printable(f" {key}={value}") for key, value in sample.labels)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows with aligned columns: all right-aligned but the last, which is unpadded."""
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        yield "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()


def _notes(profile: Profile) -> list[str]:
    return ["", *(printable(f"not covered: {note}") for note in profile.not_covered)] if profile.not_covered else []
