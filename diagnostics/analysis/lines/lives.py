"""What lines of code gained within several lives of one worker, which is replaced again and again (max_requests).

Each life is a process of its own, with a table of its own, and none is long enough to tell. So what came and what is gone
(`growth.py`) is added up over the lives, each from the end of its warm-up to the last look at it. The interval is that of the
sums: samples of different processes are as independent of each other as those of one. Nothing is ever subtracted across lives.

Each life begins anew, and what it needs once it gains again: a table that is loaded when it is first asked for is no leak,
though every life has it. So a line that grows must do so in a way that neither one life nor one moment of each makes up. Of

    every third of the lives, all first ones together, all second ones, all third ones,
    all lives without the one that gained most,
    all lives without that third of each in which it gained most

it takes at least half of the share that the time has of the whole gain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..profile import Frame
from .growth import STEADY, Gain, History, LineGrowth, difference
from .snapshot import Sum

__all__ = ["MOST_LINES", "LineLife", "gained", "life_of", "pooled"]

# What is kept of a life.
MOST_LINES = 300


@dataclass(frozen=True, slots=True)
class LineLife:
    """What lines gained in one life, from `began` to `ended` (wall clock).

    seconds    of the process, between the first look after its warm-up and the last
    rate       mean of bytes from one sample to the next
    gains      by line, those that changed most; and the line below it that allocates, see `LineGrowth`
    rest       what any other line came or went by at most
    """

    began: float
    ended: float
    seconds: float
    rate: float
    gains: Mapping[Frame, tuple[Frame, Gain]]
    rest: float = 0.0


def life_of(history: History, since: float, most: int = MOST_LINES) -> LineLife | None:
    """The life that these looks are of, from that wall-clock time on, its warm-up over; None where it is too short, or where
    its table had no room."""
    found = history.gains(since)
    if found is None:
        return None
    first, gains = found
    ranked = sorted(gains.items(), key=lambda item: -_moved(item[1]))
    names = history.names
    kept = {names.lines[line]: (names.innermost[line], gain) for line, gain in ranked[:most]}
    rest = _moved(ranked[most][1]) if len(ranked) > most else 0.0
    return LineLife(first.time, history.time, history.now.at - first.at, float(history.now.rate), kept, rest)


def _moved(gain: Gain) -> float:
    return max(gain.came.value, gain.gone.value)


def pooled(ended: Sequence[LineLife], present: LineLife | None = None) -> list[LineGrowth]:
    """What each line gained within all these lives together, most first. `present`: the life that goes on."""
    lives = [*ended, present] if present is not None else [*ended]
    lines: dict[Frame, Frame] = {}
    for life in lives:
        for frame, (innermost, _) in life.gains.items():
            lines[frame] = innermost if lines.get(frame, innermost) == innermost else frame
    rows = [_row(frame, innermost, lives, present) for frame, innermost in lines.items()]
    return sorted(rows, key=lambda row: -row.grown)


def gained(life: LineLife, most: int = 3) -> tuple[LineGrowth, ...]:
    """The lines that gained beyond doubt in a life that is over, most first."""
    return tuple(row for row in pooled([life]) if row.low > 0)[:most]


def _row(frame: Frame, innermost: Frame, lives: Sequence[LineLife], present: LineLife | None) -> LineGrowth:
    gains = [(life, life.gains[frame][1] if frame in life.gains else None) for life in lives]
    came = _sum(gain.came for _, gain in gains if gain is not None)
    # A line that a life's gains leave out may have lost as much there as the largest of those left out.
    lost = (Sum(life.rest, life.rest**2) for life, gain in gains if gain is None)
    gone = _sum([*(gain.gone for _, gain in gains if gain is not None), *lost])
    rate = max(life.rate for life in lives)
    low, high = difference(came, gone, rate)
    now = present.gains[frame][1].now if present is not None and frame in present.gains else Sum()
    held_low, held_high = now.interval(rate)
    return LineGrowth(
        frame=frame,
        innermost=innermost,
        seconds=math.fsum(life.seconds for life in lives),
        held=now.value,
        held_low=held_low,
        held_high=held_high,
        grown=came.value - gone.value,
        low=low,
        high=high,
        steady=_steady([_parts(life, gain) for life, gain in gains]),
        lives=len(lives),
    )


def _sum(parts: Iterable[Sum]) -> Sum:
    total = Sum()
    for part in parts:
        total = total.plus(part)
    return total


def _parts(life: LineLife, gain: Gain | None) -> list[tuple[float, float]]:
    """(seconds, bytes gained) of each third of a life."""
    return [(life.seconds / 3, -life.rest / 3)] * 3 if gain is None else gain.parts


def _steady(lives: Sequence[Sequence[tuple[float, float]]]) -> bool:
    """Whether neither one life, one third of all nor one third of each makes up the gain; `lives`: as `_parts`."""
    thirds = [_total(parts) for parts in zip(*lives, strict=True)]
    whole = _total(thirds)
    of_lives = [_total(parts) for parts in lives]
    shares = [
        *thirds,
        _less(whole, max(of_lives, key=_amount)),
        _less(whole, _total(max(parts, key=_amount) for parts in lives)),
    ]
    pace = whole[1] / whole[0] if whole[0] > 0 else 0.0
    return all(seconds > 0 and gained >= STEADY * pace * seconds for seconds, gained in shares)


def _total(parts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    listed = list(parts)
    return math.fsum(seconds for seconds, _ in listed), math.fsum(gained for _, gained in listed)


def _less(whole: tuple[float, float], part: tuple[float, float]) -> tuple[float, float]:
    return whole[0] - part[0], whole[1] - part[1]


def _amount(part: tuple[float, float]) -> float:
    return part[1]
