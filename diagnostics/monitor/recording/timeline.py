"""A recording as rows: for the page and for scripts (JSON), for a spreadsheet (CSV)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ...analysis.lives import Life
from .outlook import outlook
from .ring import Recording

__all__ = ["columns", "rows", "to_csv", "to_json"]

Row = list[float | None]

# What is made of totals: (name, unit, the total's field, factor)
_RATES = (
    ("events_per_second", "events a second", "events_total", 1.0),
    ("cpu_percent", "percent of one core", "cpu_seconds", 100.0),
)


def columns(recording: Recording) -> list[tuple[str, str]]:
    """(name, unit) of each column of `rows`."""
    rates = [(name, unit) for name, unit, _, _ in _RATES]
    return [*recording.header.fields, *rates, ("interval_seconds", "seconds")]


def rows(recording: Recording, since: float = -math.inf) -> list[Row]:
    """The readings from `since` (seconds since the epoch) on, in order: the fine ring, before it what only the coarser has.

    None is "not known". A rate is that from the row before to this one, and not known where the worker's total fell.
    """
    merged: list[tuple[float, tuple[float, ...]]] = []
    for ring in recording.rings:
        oldest = merged[0][1][0] if merged else math.inf
        merged[:0] = [(ring.size.interval, record) for record in ring.records if record[0] < oldest]
    return [row for row in _with_rates(recording, merged) if row[0] is not None and row[0] >= since]


def to_json(recording: Recording, since: float = -math.inf, lives: Sequence[Life] = ()) -> dict[str, Any]:
    """Rows, what the rings hold and how much of it is damaged, the outlook, and the worker's end where it is known."""
    return {
        "process": recording.header.process,
        "fields": [{"name": name, "unit": unit} for name, unit in columns(recording)],
        "rows": rows(recording, since),
        "recorder": {
            "bytes": recording.header.file_bytes,
            "rings": [
                {
                    "interval_seconds": ring.size.interval,
                    "capacity": ring.size.capacity,
                    "records": len(ring.records),
                    "bad": ring.bad,
                    "lost": ring.lost,
                }
                for ring in recording.rings
            ],
        },
        "outlook": outlook(recording, lives).to_json(),
        "end": recording.end,
        "end_damaged": recording.end_damaged,
    }


def to_csv(recording: Recording, since: float = -math.inf) -> str:
    """One line of names, then one a row; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for name, _ in columns(recording)])
    writer.writerows([["" if value is None else _plain(value) for value in row] for row in rows(recording, since)])
    return text.getvalue()


def _with_rates(recording: Recording, merged: Sequence[tuple[float, tuple[float, ...]]]) -> Iterator[Row]:
    names = [name for name, _ in recording.header.fields]
    totals = [(names.index(field) if field in names else None, factor) for _, _, field, factor in _RATES]
    before: tuple[float, ...] | None = None
    for interval, record in merged:
        rates = [None if at is None or before is None else _rate(before, record, at, factor) for at, factor in totals]
        yield [*map(_known, record), *rates, interval]
        before = record


def _rate(before: tuple[float, ...], record: tuple[float, ...], at: int, factor: float) -> float | None:
    seconds, gained = record[0] - before[0], record[at] - before[at]
    return factor * gained / seconds if seconds > 0 and gained >= 0 else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
