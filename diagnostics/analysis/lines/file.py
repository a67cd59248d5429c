"""Looks at a live heap as text, so that they outlive who took them: `<root>/blackbox/<start>-<pid>.lines`.

    {"schema": "highwater.lines/1", "pid": 7, "started": 1790000000.0, "lasting": 10.0,
     "lines": [["fill", "/srv/app.py", 41, "loads", "/usr/lib/python3.11/json/__init__.py", 346], ...],
     "looks": [[1790000060.0, 60.0, 0, 0, [0, 3], [8192, 1e9, 4096, 512, 1e6, 512]], ...]}

`started` is when sampling began and names the table that the looks are of; `lasting` is how long a block must have lived to
count. A line has its function, file and number, and those of where it allocates. A look has its wall-clock time, seconds since
sampling began, samples that the table had had no room for, what a line that it leaves out held at most, the lines it has by
their place in `lines`, and three numbers of each (`looks.Sum`).

The law of this file: whatever the text is, looks come of it or a UsageError.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from ...errors import UsageError
from ..profile import Frame
from .snapshot import MOST_LINES, Look, Names

__all__ = ["MAX_BYTES", "SCHEMA", "Written", "parse", "written"]

SCHEMA: Final = "highwater.lines/1"
MAX_BYTES: Final = 4 * 1024 * 1024
# How old the looks are that are written, in tenths of the time that a block must have lived, which are seconds: enough for the
# windows that growth is judged in, and their thirds.
_AGES: Final = (20, 30, 45, 60, 90, 120, 180, 240, 300, 400, 500, 600, 900, 1200, 1800, 2400, 3000, 3600)
_MOST_LOOKS = 100


@dataclass(frozen=True, slots=True)
class Written:
    """What a file holds; see above."""

    pid: int
    started: float
    lasting: float
    looks: tuple[Look, ...]


def written(pid: int, started: float, lasting: float, names: Names, looks: Sequence[Look]) -> str:
    """The last look, and of those before it the ones nearest to some ages."""
    thinned = _thinned(looks, lasting / 10)
    places: dict[int, int] = {}
    for look in thinned:
        for line in look.lines:
            places.setdefault(line, len(places))
    lines = [
        [frame.function, frame.file, frame.line, inner.function, inner.file, inner.line]
        for frame, inner in ((names.lines[line], names.innermost[line]) for line in places)
    ]
    rows = [
        [
            round(look.time, 1),
            round(look.at, 1),
            look.dropped,
            round(look.rest),
            [places[line] for line in look.lines],
            [_short(figure) for figure in look.sums],
        ]
        for look in thinned
    ]
    content = {
        "schema": SCHEMA, "pid": pid, "started": started, "lasting": lasting, "lines": lines, "looks": rows
    }  # fmt: skip
    return json.dumps(content, separators=(",", ":"))


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _thinned(looks: Sequence[Look], unit: float) -> list[Look]:
    if not looks:
        return []
    last = looks[-1]
    nearest = {min(looks, key=lambda look: abs(last.at - age * unit - look.at)).at for age in _AGES}
    return [look for look in looks if look.at in nearest or look is last]


def parse(text: str, names: Names) -> Written:
    """What a file's text says, its lines added to `names`. Raises UsageError."""
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise UsageError(f"lines of a live heap as {content['schema']!r}, this is a reader of {SCHEMA!r}")
        numbers = [
            names.add(Frame(str(row[0]), str(row[1]), int(row[2])), Frame(str(row[3]), str(row[4]), int(row[5])))
            for row in content["lines"]
        ]
        looks = [_look(row, numbers) for row in content["looks"][:_MOST_LOOKS]]
        if any(later.at < earlier.at for earlier, later in pairwise(looks)):
            raise UsageError("damaged lines of a live heap: the looks are not in their order")
        return Written(int(content["pid"]), _finite(content["started"]), _finite(content["lasting"]), tuple(looks))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise UsageError(f"damaged lines of a live heap: {error!r}") from error


def _look(row: Sequence[Any], numbers: Sequence[int]) -> Look:
    time, at, dropped, rest, lines, sums = row
    if len(lines) > MOST_LINES or len(sums) != 3 * len(lines):
        raise ValueError("a look has another number of figures than of lines")
    if any(place < 0 for place in lines):
        raise ValueError("a look has a line below zero")
    figures = array("f", [max(0.0, _finite(each)) for each in sums])
    return Look(
        _finite(time),
        _finite(at),
        array("L", [numbers[place] for place in lines]),
        figures,
        _finite(rest),
        int(dropped),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or abs(number) > 1e30:
        raise ValueError(f"{number!r} is no figure")
    return number
