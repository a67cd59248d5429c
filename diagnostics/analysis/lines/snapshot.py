"""Looks at a live heap by line of code: what was alive then of each line, in a form that is small enough to be kept.

All times are seconds since sampling began, where not said otherwise; see `growth.py` for what is made of them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import compress, count, pairwise
from math import expm1

from ..heap import HeapTable, Site
from ..profile import Frame
from ..sampling import interval_of
from .frames import named_by

__all__ = ["LASTING_SECONDS", "MOST_LINES", "Blocks", "Look", "Names", "Sum"]

LASTING_SECONDS = 10.0
# What a look keeps.
MOST_LINES = 100
# Sizes of blocks that are remembered; a full table has half as many.
_MOST_SIZES = 65_536


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


class Worth(dict[int, float]):
    """The bytes that a block stands for, by its size (see `sampling.py`): most blocks are there at the next look as well."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate

    def __missing__(self, size: int) -> float:
        value = self[size] = -size / expm1(-size / self.rate)
        return value


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
        self._worth = Worth(0)
        self._ours = ours

    def worth(self, rate: int) -> Worth:
        """What blocks stand for at this rate, which of one table is always the same."""
        if self._worth.rate != rate or len(self._worth) > _MOST_SIZES:
            self._worth = Worth(rate)
        return self._worth

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


# The number of the line of what is nobody's. Sums by line have one place more than there are lines, and this is the last.
_NOBODY = -1


@dataclass(frozen=True)
class Blocks:
    """The sampled blocks that are alive at `at`: of each its stack, its size, and when it was allocated, in tenths of a second.

    A full table has 32,768 blocks and 8,192 stacks. So the columns of the blocks are those of the table as they are, and what a
    line holds is added up by stack first.

    owner    of each block its stack's number in the table, from 1 on; 0: none
    line_of  by that number: the line's; _NOBODY for a stack of diagnostics' own, or one that could not be read
    lines    how many lines there are numbers for
    worth    the bytes that a block stands for, by its size
    dropped  samples that the table has had no room for until then, since sampling began
    """

    at: float
    rate: int
    owner: array[int]
    size: array[int]
    born: array[int]
    line_of: Sequence[int]
    lines: int
    worth: Worth
    dropped: int = 0

    @classmethod
    def of(cls, table: HeapTable, names: Names, at: float) -> Blocks:
        """What is alive in a table."""
        blocks = table.blocks
        numbers = names.of_sites(table.sites)
        line_of = [_NOBODY, *[_NOBODY if number is None else number for number in numbers]]
        size = blocks.size
        if 0 in size:  # a block of no bytes is one all the same
            size = array("Q", [max(1, each) for each in size])
        last = max(at, max(blocks.born, default=0) / 10)
        return cls(
            at=last,
            rate=table.rate,
            owner=blocks.owner,
            size=size,
            born=blocks.born,
            line_of=line_of,
            lines=len(names.lines),
            worth=names.worth(table.rate),
            dropped=table.dropped,
        )

    def values(self, until: float) -> list[float]:
        """The bytes that each block stands for, 0.0 for one that was allocated later than `until`."""
        values = list(map(self.worth.__getitem__, self.size))
        latest = math.floor(10 * until)
        for place in [place for place, born in enumerate(self.born) if born > latest]:
            values[place] = 0.0
        return values

    def sums(self, bounds: Sequence[float]) -> dict[int, list[Sum]]:
        """By line: the blocks allocated before the first of these times, then those between it and the second, and so on."""
        values = self.values(bounds[-1])
        parts = [self._added(values, after, until) for after, until in pairwise([-math.inf, *bounds])]
        none = Sum()
        return {line: [part.get(line, none) for part in parts] for line in set().union(*parts)}

    def _added(self, values: Sequence[float], after: float, until: float) -> dict[int, Sum]:
        """By line the blocks allocated after the first of these times, and no later than the second."""
        after, until = 10 * after, 10 * until
        places = len(self.line_of)
        held, variance, seen = [0.0] * places, [0.0] * places, [0] * places
        inside = [after < born <= until for born in self.born]
        for owner, size, value in compress(zip(self.owner, self.size, values, strict=True), inside):
            held[owner] += value
            variance[owner] += value * (value - size)
            seen[owner] += size
        rows = enumerate(zip(*(self._by_line(each) for each in (held, variance, seen)), strict=True))
        return {line: Sum(*row) for line, row in rows if row[2] and line < self.lines}

    def _by_line(self, figures: Sequence[float]) -> list[float]:
        """What a figure is by line, from what it is by stack; the last place is nobody's."""
        sums = [0.0] * (self.lines + 1)
        for line, figure in zip(self.line_of, figures, strict=True):
            sums[line] += figure
        return sums

    def largest(self, until: float, most: int) -> tuple[list[tuple[int, Sum]], float]:
        """What those lines held that held most, of blocks allocated until then, most first; and what any other held at most.

        All blocks are added up by their value alone, in one pass; the rest of a sum only of the lines that are kept.
        """
        values, owners = self.values(until), self.owner.tolist()
        of_stack = [0.0] * len(self.line_of)
        for owner, value in zip(owners, values, strict=True):
            of_stack[owner] += value
        held = self._by_line(of_stack)[: self.lines]
        ranked = [line for line in nlargest(most + 1, range(self.lines), key=held.__getitem__) if held[line]]
        kept = ranked[:most]
        variance, seen = dict.fromkeys(kept, 0.0), dict.fromkeys(kept, 0.0)
        is_kept = list(map(variance.__contains__, self.line_of))
        for place in compress(count(), map(is_kept.__getitem__, owners)):
            if value := values[place]:
                line, size = self.line_of[owners[place]], self.size[place]
                variance[line] += value * (value - size)
                seen[line] += size
        rest = held[ranked[most]] if len(ranked) > most else 0.0
        return [(line, Sum(held[line], variance[line], seen[line])) for line in kept], rest


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
