"""Looks at a live heap by line of code: what was alive then of each line, in a form that is small enough to be kept.

All times are seconds since sampling began, where not said otherwise; see `growth.py` for what is made of them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from math import expm1

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
    """The sampled blocks that are alive at `at`: of each its line's number, its size, and when it was allocated, in tenths
    of a second, as the table has it.

    dropped   samples that the table has had no room for until then, since sampling began
    """

    at: float
    rate: int
    line: array[int]
    size: array[int]
    born: array[int]
    dropped: int = 0

    @classmethod
    def of(cls, table: HeapTable, names: Names, at: float) -> Blocks:
        """What is alive in a table; blocks whose stack could not be read are nobody's."""
        blocks = table.blocks
        # By the place of a stack plus one, which is how a block names it; 0 is no stack.
        numbers = [None, *names.of_sites(table.sites)]
        lines = list(map(numbers.__getitem__, blocks.owner))
        size, born = blocks.size, blocks.born
        if None in lines:
            told = [line is not None for line in lines]
            size, born = array("Q", compress(size, told)), array(born.typecode, compress(born, told))
        if 0 in size:  # a block of no bytes is one all the same
            size = array("Q", [max(1, each) for each in size])
        line = array("L", [line for line in lines if line is not None])
        return cls(max(at, max(born, default=0) / 10), table.rate, line, size, born, table.dropped)

    def values(self) -> list[float]:
        """The bytes that each block stands for (see `sampling.py`)."""
        each = -1 / self.rate
        return [-size / expm1(size * each) for size in self.size]

    def sums(self, bounds: Sequence[float]) -> dict[int, list[Sum]]:
        """By line: the blocks allocated before the first of these times, then those between it and the second, and so on."""
        values = self.values()
        parts = [self._added(values, after, until) for after, until in pairwise([-math.inf, *bounds])]
        none = Sum()
        return {line: [part.get(line, none) for part in parts] for line in set().union(*parts)}

    def _added(self, values: Sequence[float], after: float, until: float) -> dict[int, Sum]:
        """By line the blocks allocated within that time. Numbers of lines are small, and so places in a list."""
        lines = 1 + max(self.line, default=-1)
        held, variance, seen = [0.0] * lines, [0.0] * lines, [0] * lines
        inside = self._born_within(after, until)
        for line, size, value in compress(zip(self.line, self.size, values, strict=True), inside):
            held[line] += value
            variance[line] += value * (value - size)
            seen[line] += size
        rows = enumerate(zip(held, variance, seen, strict=True))
        return {line: Sum(*row) for line, row in rows if row[2]}

    def largest(self, until: float, most: int) -> tuple[list[tuple[int, Sum]], float]:
        """What those lines held that held most, of blocks allocated until then, most first; and what any other held at most.

        All blocks are added up by their value alone, in one pass; the rest of a sum only of the lines that are kept.
        """
        values, inside = self.values(), self._born_within(-math.inf, until)
        held = [0.0] * (1 + max(self.line, default=-1))
        for line, value in compress(zip(self.line, values, strict=True), inside):
            held[line] += value
        ranked = [
            line for line in sorted(range(len(held)), key=held.__getitem__, reverse=True)[: most + 1] if held[line]
        ]
        kept = ranked[:most]
        variance, seen = dict.fromkeys(kept, 0.0), dict.fromkeys(kept, 0.0)
        wanted = map(variance.__contains__, compress(self.line, inside))
        chosen = compress(zip(self.line, self.size, values, strict=True), inside)
        for line, size, value in compress(chosen, wanted):
            variance[line] += value * (value - size)
            seen[line] += size
        rest = held[ranked[most]] if len(ranked) > most else 0.0
        return [(line, Sum(held[line], variance[line], seen[line])) for line in kept], rest

    def _born_within(self, after: float, until: float) -> list[bool]:
        """Of each block whether it was allocated after the first of these times, and no later than the second."""
        after, until = 10 * after, 10 * until
        return [after < born <= until for born in self.born]


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
        kept, rest = blocks.largest(blocks.at - lasting, most)
        figures = array("f", [figure for _, each in kept for figure in (each.value, each.variance, each.seen)])
        return cls(time, blocks.at, array("L", [line for line, _ in kept]), figures, rest, blocks.dropped)

    def held(self) -> dict[int, Sum]:
        return {line: Sum(*self.sums[3 * place : 3 * place + 3]) for place, line in enumerate(self.lines)}

    def at_least(self, line: int, held: Mapping[int, Sum], stayed: Sum) -> Sum:
        """What this line held then: kept, or what stayed of it, and as much more as one that was not kept may have had."""
        known = held.get(line)
        if known is not None:
            return known
        return Sum(max(stayed.value, self.rest), max(stayed.variance, self.rest**2), stayed.seen)
