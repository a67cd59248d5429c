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
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .frames import named_by, place_of
from .heap import Site, Table
from .profile import Frame
from .sampling import interval_of

__all__ = ["LASTING_SECONDS", "Blocks", "History", "LineGrowth", "Look", "Names", "Sum", "total"]

LASTING_SECONDS = 10.0
# A gain is steady where each third of the time, from one look to another, has at least half of its share of it.
_STEADY = 0.5
# What a look keeps.
MOST_LINES = 100
# Nothing is said of a time shorter than so many times `lasting`: it has no thirds.
_LEAST = 2.0


@dataclass(frozen=True, slots=True)
class Sum:
    """Estimated bytes of some sampled blocks.

    variance   of the estimate; it is additive
    seen       what was really found: the true bytes are no fewer
    """

    value: float = 0.0
    variance: float = 0.0
    seen: float = 0.0

    def less(self, other: Sum) -> Sum:
        """What is left of these blocks without those of `other`, which are among them."""
        return Sum(
            max(0.0, self.value - other.value),
            max(0.0, self.variance - other.variance),
            max(0.0, self.seen - other.seen),
        )

    def plus(self, other: Sum) -> Sum:
        return Sum(self.value + other.value, self.variance + other.variance, self.seen + other.seen)

    def interval(self, largest: float) -> tuple[float, float]:
        low, high = interval_of(self.value, self.variance, largest)
        return max(self.seen, low), max(self.seen, high)


class Names:
    """The lines that the stacks of one table are told by, numbered. Grows with the table's stacks, whose number is bounded.

    ours   whether a frame is of the agent's code (see `frames.named_by`)
    """

    def __init__(self, ours: Callable[[Frame], bool]) -> None:
        self.lines: list[Frame] = []
        # By the line's number: the one frame that its memory is allocated in; the line itself where there are several.
        self.innermost: list[Frame] = []
        self._numbers: dict[Frame, int] = {}
        self._of_site: dict[int, int | None] = {}
        self._ours = ours

    def of_site(self, place: int, site: Site | None) -> int | None:
        """The number of the line that the stack at this place of the table is told by; None for one of diagnostics' own, or
        one that could not be read. A place of a table is never used again for another stack."""
        if place not in self._of_site and site is not None:
            frame = named_by(site.stack, self._ours)
            self._of_site[place] = None if frame is None else self.add(frame, site.stack[0])
        return self._of_site.get(place)

    def add(self, line: Frame, innermost: Frame) -> int:
        """The number of this line, a new one where it is not known yet."""
        number = self._numbers.get(line)
        if number is None:
            number = self._numbers[line] = len(self.lines)
            self.lines.append(line)
            self.innermost.append(innermost)
        elif self.innermost[number] != innermost:
            self.innermost[number] = line
        return number


@dataclass(frozen=True)
class Blocks:
    """The sampled blocks that are alive at `at`: of each its line's number, its size, and when it was allocated."""

    at: float
    rate: int
    line: array[int]
    size: array[int]
    born: array[float]

    @classmethod
    def of(cls, table: Table, names: Names, at: float) -> Blocks:
        """What is alive in a table; blocks whose stack could not be read are nobody's."""
        line, size, born = array("L"), array("Q"), array("d")
        numbers = [names.of_site(place, site) for place, site in enumerate(table.sites)]
        for site, each, since, _ in table.blocks:
            number = numbers[site]
            if number is not None:
                line.append(number)
                size.append(each)
                born.append(since)
        return cls(max([at, *born]), table.rate, line, size, born)

    def sums(self, bounds: Sequence[float]) -> dict[int, list[Sum]]:
        """By line: the blocks allocated before the first of these times, then those between it and the second, and so on."""
        known: dict[int, tuple[float, float]] = {}
        added: dict[int, list[list[float]]] = {}
        for line, size, born in zip(self.line, self.size, self.born, strict=True):
            place = bisect_left(bounds, born)
            if place == len(bounds):
                continue
            figures = known.get(size)
            if figures is None:
                figures = known[size] = _estimate(size, self.rate)
            rows = added.get(line)
            if rows is None:
                rows = added[line] = [[0.0, 0.0, 0.0] for _ in bounds]
            row = rows[place]
            row[0] += figures[0]
            row[1] += figures[1]
            row[2] += size
        return {line: [Sum(*row) for row in rows] for line, rows in added.items()}


@dataclass(frozen=True, slots=True)
class Look:
    """An earlier look at the heap: what each line held that had lived for a while.

    time    wall clock
    at      seconds since sampling began
    lines   numbers of the lines that held most
    sums    of each of these value, variance and seen, one after the other
    rest    what any other line held at most
    """

    time: float
    at: float
    lines: array[int]
    sums: array[float]
    rest: float = 0.0

    @classmethod
    def of(cls, blocks: Blocks, time: float, lasting: float = LASTING_SECONDS, most: int = MOST_LINES) -> Look:
        held = {line: sums[0] for line, sums in blocks.sums([blocks.at - lasting]).items()}
        ranked = sorted(held, key=lambda line: -held[line].value)
        kept = ranked[:most]
        sums = [held[line] for line in kept]
        figures = array("f", [figure for each in sums for figure in (each.value, each.variance, each.seen)])
        rest = held[ranked[most]].value if len(ranked) > most else 0.0
        return cls(time, blocks.at, array("L", kept), figures, rest)

    def held(self) -> dict[int, Sum]:
        return {line: Sum(*self.sums[3 * place : 3 * place + 3]) for place, line in enumerate(self.lines)}

    def at_least(self, line: int, held: Mapping[int, Sum], stayed: Sum) -> Sum:
        """What this line held then: kept, or what stayed of it, and as much more as one that was not kept may have had."""
        known = held.get(line)
        if known is not None:
            return known
        return Sum(max(stayed.value, self.rest), max(stayed.variance, self.rest**2), stayed.seen)


@dataclass(frozen=True, slots=True)
class LineGrowth:
    """What a line has gained within `seconds`, in bytes; each figure with what holds the true one in 95 of 100 cases.

    frame       the line that is told
    innermost   the line below it that allocates, where it is one and the same for all of it; else `frame`
    held        alive now; held_low, held_high: its interval
    grown       gained; low, high: its interval
    steady      whether each third of the time has its part in the gain
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
            "held_bytes": {"low": self.held_low, "mid": self.held, "high": self.held_high},
            "grown_bytes": {"low": self.low, "mid": self.grown, "high": self.high},
            "per_hour": dict(zip(("low", "mid", "high"), self.per_hour, strict=True)),
            "grows": self.grows,
        }


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

        None where there is no look that is long enough ago.
        """
        first = next((look for look in self.looks if look.time >= time), None)
        if first is None or self.now.at - first.at < _LEAST * self.lasting:
            return None
        thirds = [self._nearest(first.at + (self.now.at - first.at) * part / 3) for part in (1, 2)]
        looks = [first, *thirds]
        # Blocks of each line that had lived for long enough then, and those that have now.
        bounds = [each - self.lasting for each in (first.at, self.now.at)]
        sums = self.now.sums(bounds)
        held = [look.held() for look in looks]
        lines = set(sums) | set(held[0])
        rows = [self._row(line, looks, held, sums.get(line) or [Sum(), Sum()]) for line in lines]
        return first, sorted(rows, key=lambda row: -row.grown)

    def _nearest(self, at: float) -> Look:
        return min(self.looks, key=lambda look: abs(look.at - at))

    def _row(
        self, line: int, looks: Sequence[Look], held: Sequence[Mapping[int, Sum]], sums: Sequence[Sum]
    ) -> LineGrowth:
        stayed, came = sums
        was = looks[0].at_least(line, held[0], stayed)
        now, gone = stayed.plus(came), was.less(stayed)
        low, high = _difference(came, gone, float(self.now.rate))
        values = [was.value, *(before.get(line, Sum()).value for before in held[1:]), now.value]
        path = list(zip([*(look.at for look in looks), self.now.at], values, strict=True))
        gain = now.value - was.value
        least = _STEADY * gain / (self.now.at - looks[0].at)
        steady = all(t > s and after - before >= least * (t - s) for (s, before), (t, after) in pairwise(path))
        held_low, held_high = now.interval(float(self.now.rate))
        return LineGrowth(
            frame=self.names.lines[line],
            innermost=self.names.innermost[line],
            seconds=self.now.at - looks[0].at,
            held=now.value,
            held_low=held_low,
            held_high=held_high,
            grown=gain,
            low=low,
            high=high,
            steady=steady,
        )


def _estimate(size: int, rate: int) -> tuple[float, float]:
    """(bytes that a sampled block of this size stands for, the variance that it adds)."""
    bytes_ = max(size, 1)
    chance = -math.expm1(-bytes_ / rate)
    return bytes_ / chance, bytes_**2 * math.exp(-bytes_ / rate) / chance**2


def _difference(came: Sum, gone: Sum, rate: float) -> tuple[float, float]:
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
