"""What lines gained in a life that is over, as text, so that a monitor that is started anew knows it: `<start>-<pid>.life`.

    {"schema": "highwater.line-life/1", "began": 1790000060.0, "ended": 1790000300.0, "seconds": 240.0, "rate": 524288.0,
     "rest": 8192.0, "gains": [[["fill", "/srv/app.py", 41], ["loads", "/usr/lib/python3.11/json/__init__.py", 346],
                                [[1e7, 1e12, 8e6], [0, 0, 0], [1.5e7, 2e12, 1e7]],
                                [[60.0, 5e6], [140.0, 8e6], [220.0, 1.1e7], [300.0, 1.5e7]]], ...]}

A line has its function, file and number, those of where it allocates, the sums of `Gain` (came, gone, now: value, variance and
seen of each), and its path. The tables of the last few processes are kept, and each has 3 MiB: this is what is needed of them.

The law of this file: whatever the text is, a life comes of it or a UsageError.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from ...errors import UsageError
from ..profile import Frame
from .growth import Gain
from .lives import MOST_LINES, LineLife
from .snapshot import Sum

__all__ = ["MAX_BYTES", "SCHEMA", "parse", "written"]

SCHEMA: Final = "highwater.line-life/1"
MAX_BYTES: Final = 1024 * 1024
# The first look, the ends of the first two thirds, the last look.
_POINTS: Final = 4


def written(life: LineLife) -> str:
    """As `parse` reads it."""
    content = {
        "schema": SCHEMA, "began": life.began, "ended": life.ended, "seconds": life.seconds, "rate": life.rate,
        "rest": life.rest,
        "gains": [
            [_place(frame), _place(innermost), [_figures(each) for each in (gain.came, gain.gone, gain.now)], gain.path]
            for frame, (innermost, gain) in life.gains.items()
        ],
    }  # fmt: skip
    return json.dumps(content, separators=(",", ":"))


def _place(frame: Frame) -> list[str | int]:
    return [frame.function, frame.file, frame.line]


def _figures(each: Sum) -> list[float]:
    return [each.value, each.variance, each.seen]


def parse(text: str) -> LineLife:
    """What a file's text says. Raises UsageError."""
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise UsageError(f"a life of lines as {content['schema']!r}, this is a reader of {SCHEMA!r}")
        began, ended, seconds, rate, rest = (
            _figure(content[name]) for name in ("began", "ended", "seconds", "rate", "rest")
        )
        if not (seconds > 0 and rate > 0):
            raise ValueError("a life of no time, or without samples")
        gains = {_frame(row[0]): (_frame(row[1]), _gain(row[2], row[3])) for row in content["gains"][:MOST_LINES]}
        return LineLife(began, ended, seconds, rate, gains, rest)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise UsageError(f"a damaged life of lines: {error!r}") from error


def _frame(place: Any) -> Frame:
    function, file, line = place
    return Frame(str(function), str(file), int(line))


def _gain(sums: Any, path: Any) -> Gain:
    came, gone, now = (Sum(*(_figure(figure) for figure in each)) for each in sums)
    points = tuple((_figure(at), _figure(held)) for at, held in path)
    if len(points) != _POINTS:
        raise ValueError(f"a line has {len(points)} moments instead of {_POINTS}")
    return Gain(came, gone, now, points)


def _figure(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0 <= number <= 1e30):
        raise ValueError(f"{number!r} is no figure")
    return number
