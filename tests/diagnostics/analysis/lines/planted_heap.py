"""Heaps whose true blocks are known, and their tables as sampling would have made them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from diagnostics.analysis.heap import HeapTable, LiveBlocks, Site
from diagnostics.analysis.lines.growth import History
from diagnostics.analysis.lines.snapshot import Blocks, Look, Names
from diagnostics.analysis.profile import Frame

RATE = 512 * 1024
STARTED = 1_790_000_000.0
FOREVER = math.inf


@dataclass
class Heap:
    """Blocks of lines: (line, bytes, when it was allocated, when it was freed), in seconds after sampling began."""

    rng: random.Random
    rate: int = RATE
    lines: list[str] = field(default_factory=list)
    blocks: list[tuple[int, int, float, float]] = field(default_factory=list)
    sampled: list[tuple[int, int, float, float]] = field(default_factory=list)

    def add(self, line: str, blocks: Iterable[tuple[int, float, float]]) -> None:
        if line not in self.lines:
            self.lines.append(line)
        number = self.lines.index(line)
        for size, born, died in blocks:
            block = (number, size, born, died)
            self.blocks.append(block)
            if self.rng.random() < -math.expm1(-size / self.rate):
                self.sampled.append(block)

    def fill(self, line: str, total: float, size: int, begin: float, end: float, lives: float = FOREVER) -> None:
        """`total` bytes in blocks of about this size, allocated evenly within that time; each lives for so long."""
        self.add(line, self._evenly(total, size, begin, end, lives))

    def _evenly(
        self, total: float, size: int, begin: float, end: float, lives: float
    ) -> Iterator[tuple[int, float, float]]:
        for _ in range(round(total / size)):
            born = self.rng.uniform(begin, end)
            yield size, born, born + lives

    def alive(self, line: str, at: float, lasting: float = 10.0) -> int:
        """True bytes of a line that had lived for so long then."""
        number = self.lines.index(line)
        return sum(
            size for each, size, born, died in self.blocks if each == number and born <= at - lasting and at < died
        )

    def table(self, at: float) -> HeapTable:
        blocks = LiveBlocks.of(
            (line, size, born, place)
            for place, (line, size, born, died) in enumerate(self.sampled)
            if born <= at < died
        )
        sites = tuple(
            Site((Frame(line, "/srv/app.py", 10 + place),), 0.0, 0.0) for place, line in enumerate(self.lines)
        )
        return HeapTable(
            7, 77, "on", self.rate, STARTED, STARTED + at, sites, blocks, False, len(self.sampled), 0, 0.0, 0
        )

    def history(self, times: Sequence[float], most: int = 100) -> History:
        """As the recorder would have looked at these times, the last one being now."""
        names = Names(lambda frame: frame.function.startswith("agent"))
        now = Blocks.of(self.table(0.0), names, 0.0)
        looks = []
        for at in times:
            now = Blocks.of(self.table(at), names, at)
            looks.append(Look.of(now, STARTED + at, most=most))
        return History(names, looks, now, STARTED + times[-1])
