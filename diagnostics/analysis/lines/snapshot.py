"""Looks at a live heap by line of code: what was alive then of each line, in a form that is small enough to be kept.

All times are seconds since sampling began, where not said otherwise; see `growth.py` for what is made of them.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..heap import HeapTable, Site
from ..profile import Frame
from ..sampling import interval_of
from .frames import named_by

__all__ = ["LASTING_SECONDS", "MOST_LINES", "Blocks", "Look", "Names", "Sum"]

LASTING_SECONDS = 10.0
# What a look keeps.
MOST_LINES = 100


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

    def of_sites(self, sites: Sequence[Site | None]) -> list[int | None]:
        """By the place of a stack in its table: the number of the line that it is told by; None for one of diagnostics' own, or
        one that could not be read. A place of a table is never used again for another stack, so only new ones are looked at."""
        known = self._of_site
        for place in [place for place in range(len(sites)) if place not in known]:
            site = sites[place]
            if site is not None:
                frame = named_by(site.stack, self._ours)
                known[place] = None if frame is None else self.add(frame, site.stack[0])
        return [known.get(place) for place in range(len(sites))]

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
    """The sampled blocks that are alive at `at`: of each its line's number, its size, and when it was allocated.

    dropped   samples that the table has had no room for until then, since sampling began
    """

    at: float
    rate: int
    line: array[int]
    size: array[int]
    born: array[float]
    dropped: int = 0

    @classmethod
    def of(cls, table: HeapTable, names: Names, at: float) -> Blocks:
        """What is alive in a table; blocks whose stack could not be read are nobody's."""
        numbers = names.of_sites(table.sites)
        told = [block for block in table.blocks if numbers[block[0]] is not None]
        line = array("L", [numbers[site] or 0 for site, _, _, _ in told])
        size = array("Q", [size for _, size, _, _ in told])
        born = array("d", [born for _, _, born, _ in told])
        return cls(max([at, *born]), table.rate, line, size, born, table.dropped)

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
    dropped see `Blocks`
    """

    time: float
    at: float
    lines: array[int]
    sums: array[float]
    rest: float = 0.0
    dropped: int = 0

    @classmethod
    def of(cls, blocks: Blocks, time: float, lasting: float = LASTING_SECONDS, most: int = MOST_LINES) -> Look:
        held = {line: sums[0] for line, sums in blocks.sums([blocks.at - lasting]).items()}
        ranked = sorted(held, key=lambda line: -held[line].value)
        kept = ranked[:most]
        sums = [held[line] for line in kept]
        figures = array("f", [figure for each in sums for figure in (each.value, each.variance, each.seen)])
        rest = held[ranked[most]].value if len(ranked) > most else 0.0
        return cls(time, blocks.at, array("L", kept), figures, rest, blocks.dropped)

    def held(self) -> dict[int, Sum]:
        return {line: Sum(*self.sums[3 * place : 3 * place + 3]) for place, line in enumerate(self.lines)}

    def at_least(self, line: int, held: Mapping[int, Sum], stayed: Sum) -> Sum:
        """What this line held then: kept, or what stayed of it, and as much more as one that was not kept may have had."""
        known = held.get(line)
        if known is not None:
            return known
        return Sum(max(stayed.value, self.rest), max(stayed.variance, self.rest**2), stayed.seen)


def _estimate(size: int, rate: int) -> tuple[float, float]:
    """(bytes that a sampled block of this size stands for, the variance that it adds)."""
    bytes_ = max(size, 1)
    chance = -math.expm1(-bytes_ / rate)
    return bytes_ / chance, bytes_**2 * math.exp(-bytes_ / rate) / chance**2
