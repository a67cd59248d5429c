"""How much each line of code has gained in the live heap since an earlier look at it, with the interval of each figure.

A look at the table of a sampled heap gives the sampled blocks that are alive, each with its line, its size and when it was
allocated. Of an earlier look only sums by line are kept (`Look`). That is enough to tell exactly what has changed since,
because a block that is alive now and is older than that look was alive then:

    came    blocks alive now that were allocated since
    stayed  blocks alive now that were allocated before
    gone    what was alive then, less what stayed

The gain is what came less what is gone; what stayed has no part in it, and its sampling error has none either. What came and
what is gone are sums of samples that were taken independently of each other, each with an interval of its own (`sampling.py`);
the interval of their difference is made of these by MOVER (Zou and Donner, Construction of confidence intervals about effect
measures: a general approach, Statistics in Medicine 27, 2008). It holds the gain of the true blocks in 95 of 100 cases, also
where none of those that are gone was sampled.

Only blocks that have lived for a while count (`lasting`, ten seconds unless readings are taken more often than once a second),
then as now: what a request needs for a moment is no growth. Times are seconds since sampling began, where not said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..profile import Frame
from .frames import place_of
from .snapshot import LASTING_SECONDS, Blocks, Look, Names, Sum

__all__ = ["STEADY", "Gain", "History", "LineGrowth", "difference", "told_first", "total"]

# A gain is steady where each third of the time, from one look to another, has at least half of its share of it.
STEADY = 0.5
# Nothing is said of a time shorter than so many times `lasting`: it has no thirds.
_LEAST = 2.0


@dataclass(frozen=True, slots=True)
class LineGrowth:
    """What a line has gained within `seconds`, in bytes; each figure with what holds the true one in 95 of 100 cases.

    frame       the line that is told
    innermost   the line below it that allocates, where it is one and the same for all of it; else `frame`
    held        alive now; held_low, held_high: its interval
    grown       gained; low, high: its interval
    steady      whether each third of the time has its part in the gain
    lives       of how many processes that is, one after the other: `seconds` and `grown` are of all, and `held` of the last
    """

    frame: Frame
    innermost: Frame
    seconds: float
    held: float
    held_low: float
    held_high: float
    grown: float
    low: float
    high: float
    steady: bool
    lives: int = 1

    @property
    def name(self) -> str:
        return place_of(self.frame)

    @property
    def inside(self) -> str:
        """The function of a library that it was allocated in, "" where the line allocates itself."""
        return "" if self.innermost == self.frame else place_of(self.innermost)

    @property
    def grows(self) -> bool:
        """Whether it may be called growing: no growth at all is outside of the interval, and no step was taken for growth."""
        return self.low > 0 and self.steady

    def per(self, count: float) -> tuple[float, float, float]:
        """(low, mid, high) for each of `count` parts of the gain: hours, or streams that finished meanwhile."""
        return self.low / count, self.grown / count, self.high / count

    @property
    def per_hour(self) -> tuple[float, float, float]:
        return self.per(self.seconds / 3600)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "function": self.frame.function,
            "file": self.frame.file,
            "line": self.frame.line,
            "in": self.inside or None,
            "seconds": self.seconds,
            "lives": self.lives,
            "held_bytes": {"low": self.held_low, "mid": self.held, "high": self.held_high},
            "grown_bytes": {"low": self.low, "mid": self.grown, "high": self.high},
            "per_hour": dict(zip(("low", "mid", "high"), self.per_hour, strict=True)),
            "grows": self.grows,
        }


@dataclass(frozen=True, slots=True)
class Gain:
    """What is known of a line between two looks; see above.

    now    what is alive
    path   (time, bytes) at the first look, at the ends of the first two thirds, and now
    """

    came: Sum
    gone: Sum
    now: Sum
    path: tuple[tuple[float, float], ...]

    @property
    def parts(self) -> list[tuple[float, float]]:
        """(seconds, bytes gained) of each third."""
        return [(t - s, after - before) for (s, before), (t, after) in pairwise(self.path)]

    @property
    def grown(self) -> float:
        return self.path[-1][1] - self.path[0][1]


@dataclass(frozen=True)
class History:
    """Looks at the heap of one process, the oldest first, and the blocks that are alive now, `time` by the wall clock.

    lasting   how long a block must have lived, in seconds; the same for all looks
    """

    names: Names
    looks: Sequence[Look]
    now: Blocks
    time: float
    lasting: float = LASTING_SECONDS

    def since(self, time: float) -> tuple[Look, list[LineGrowth]] | None:
        """What each line has gained since the first look at or after this wall-clock time, and that look; most gained first.

        None where there is no look that is long enough ago, or where the table has had no room for samples since then: what
        was allocated is not known any more.
        """
        found = self.gains(time)
        if found is None:
            return None
        first, gains = found
        return first, sorted((self._row(line, gain) for line, gain in gains.items()), key=lambda row: -row.grown)

    def gains(self, time: float) -> tuple[Look, dict[int, Gain]] | None:
        """As `since`, what that is made of, by the line's number."""
        first = next((look for look in self.looks if look.time >= time), None)
        if first is None or self.now.at - first.at < _LEAST * self.lasting or self.now.dropped > first.dropped:
            return None
        thirds = [self._nearest(first.at + (self.now.at - first.at) * part / 3) for part in (1, 2)]
        looks = [first, *thirds]
        # Blocks of each line that had lived for long enough then, and those that have now.
        bounds = [each - self.lasting for each in (first.at, self.now.at)]
        sums = self.now.sums(bounds)
        held = [look.held() for look in looks]
        lines = set(sums) | set(held[0])
        return first, {line: self._gain(line, looks, held, sums.get(line) or [Sum(), Sum()]) for line in lines}

    def _nearest(self, at: float) -> Look:
        return min(self.looks, key=lambda look: abs(look.at - at))

    def _gain(self, line: int, looks: Sequence[Look], held: Sequence[Mapping[int, Sum]], sums: Sequence[Sum]) -> Gain:
        stayed, came = sums
        was = looks[0].at_least(line, held[0], stayed)
        now = stayed.plus(came)
        values = [was.value, *(before.get(line, Sum()).value for before in held[1:]), now.value]
        path = tuple(zip([*(look.at for look in looks), self.now.at], values, strict=True))
        return Gain(came, was.less(stayed), now, path)

    def _row(self, line: int, gain: Gain) -> LineGrowth:
        rate = float(self.now.rate)
        low, high = difference(gain.came, gain.gone, rate)
        seconds = gain.path[-1][0] - gain.path[0][0]
        least = STEADY * gain.grown / seconds
        held_low, held_high = gain.now.interval(rate)
        return LineGrowth(
            frame=self.names.lines[line],
            innermost=self.names.innermost[line],
            seconds=seconds,
            held=gain.now.value,
            held_low=held_low,
            held_high=held_high,
            grown=gain.grown,
            low=low,
            high=high,
            steady=all(length > 0 and more >= least * length for length, more in gain.parts),
        )


def difference(came: Sum, gone: Sum, rate: float) -> tuple[float, float]:
    """The interval of `came` - `gone`, by MOVER. A sample more, of whatever size, would have stood for `rate` bytes beside
    itself at most: so sizes of which none was sampled are allowed for."""
    (came_low, came_high), (gone_low, gone_high) = came.interval(rate), gone.interval(rate)
    middle = came.value - gone.value
    return (
        middle - math.hypot(came.value - came_low, gone_high - gone.value),
        middle + math.hypot(came_high - came.value, gone.value - gone_low),
    )


def total(rows: Iterable[LineGrowth]) -> tuple[float, float, float]:
    """(low, mid, high) of what all these lines gained together: their figures are independent of each other."""
    listed = list(rows)
    middle = math.fsum(row.grown for row in listed)
    below = math.sqrt(math.fsum((row.grown - row.low) ** 2 for row in listed))
    above = math.sqrt(math.fsum((row.high - row.grown) ** 2 for row in listed))
    return middle - below, middle, middle + above


def told_first(rows: Sequence[LineGrowth], most: int) -> list[LineGrowth]:
    """Of rows that gained most first: the `most` first that grow, and then the `most` that hold most.

    Soon after a growth began there are too few samples to know of any line whether it was steady. Then those come first that
    have gained beyond doubt.
    """
    first = [row for row in rows if row.grows][:most] or [row for row in rows if row.low > 0][:most]
    return first + [row for row in sorted(rows, key=lambda row: -row.held)[:most] if row not in first]
