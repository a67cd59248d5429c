"""Which objects a census looks at in a large service, and how far its figures may be off.

Where there are millions, looking at each takes too long. Then the large ones are all looked at, and of the small ones those
whose address is in the sample: each stands for several. Whether an address is in it does not depend on what lies there, so each
object has the same chance (Poisson sampling), and an object that two censuses see is in both or in none: their difference is
uncertain only by what came and went between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .classes import basic_size_of
from .graph import has_fixed_size, sizes_of
from .walk.steps import drawn, kinds, of_kinds

__all__ = ["LARGE_BYTES", "PARTS", "Sample", "large_among", "parts_for"]

# An object of this size or more is looked at in any case: one that stood for ten would be most of an estimate.
LARGE_BYTES = 4096
# A sample is so many parts of this many.
PARTS = 256
# All are looked at where the collector tracks at most so many, and there are at most so many small blocks: that takes two
# seconds on a slow machine.
_ALL, _ALL_BLOCKS = 500_000, 2_500_000
# Of more than these, so many by expectation.
_SOME, _SOME_BLOCKS = 200_000, 800_000
# Of an address.
_BYTES = 8
# A shorter text is small: a character takes four bytes at most, and the object less than a hundred more.
_TEXTS = frozenset({str, bytes})
_LONG = (LARGE_BYTES - 100) // 4


def parts_for(tracked: int, blocks: int) -> int:
    """Of 256 parts of the objects how many are to be looked at.

    tracked   so many the collector tracks
    blocks    so many small blocks Python's allocator has handed out: a list of a million strings is one tracked object
    """
    parts = PARTS
    if tracked > _ALL:
        parts = PARTS * _SOME // tracked
    if blocks > _ALL_BLOCKS:
        parts = min(parts, PARTS * _SOME_BLOCKS // blocks)
    return max(1, parts)


def large_among(things: list[Any], wanted: frozenset[type]) -> list[Any]:
    """Those of `things` that are of these classes and take LARGE_BYTES or more.

    In a service of millions of objects nearly all are small, and to ask each for its size takes longer than all else:
    strings are asked for their length only, and instances of a class without a size of their own for nothing.
    """
    met = wanted.intersection(kinds(things))
    large: list[Any] = []
    texts = met & _TEXTS
    if texts and max(map(len, of_kinds(things, texts))) >= _LONG:
        large += _of_size([thing for thing in of_kinds(things, texts) if len(thing) >= _LONG])
    others = frozenset(kind for kind in met - texts if not has_fixed_size(kind) or basic_size_of(kind) >= LARGE_BYTES)
    return large + _of_size(of_kinds(things, others)) if others else large


def _of_size(things: list[Any]) -> list[Any]:
    sizes = list(sizes_of(things))
    if max(sizes, default=0) < LARGE_BYTES:
        return []
    return [thing for thing, size in zip(things, sizes, strict=True) if size >= LARGE_BYTES]


def _shuffled(times: int) -> Iterator[bytes]:
    """All numbers below 256 in an order by lot, `times` such; the same ones in each process.

    By Knuth's linear congruential generator for 64 bits (The Art of Computer Programming, volume 2, 3.3.4), of which the upper
    bits count: `random` is a module that the service may not have loaded.
    """
    number = 1
    for _ in range(times):
        lots = []
        for value in range(256):
            number = (number * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            lots.append((number >> 32, value))
        yield bytes(value for _lot, value in sorted(lots))


class Sample:
    """The small objects that are looked at, and what a census knows of their types.

    share    of the small objects those that are looked at, of 1
    weight   how many each of them stands for
    """

    def __init__(self, parts: int) -> None:
        self.share = parts / PARTS
        self.weight = PARTS / parts
        self._parts = parts
        self._numbers = b"".join(_shuffled(_BYTES))

    def of(self, things: list[Any], wanted: frozenset[type]) -> tuple[list[Any], list[Any]]:
        """Of `things` those of these classes: (the large ones, the small ones that are in the sample)."""
        small = of_kinds(drawn(things, self._numbers, self._parts), wanted)
        large = large_among(things, wanted)
        if not large:
            return [], small
        either = set(map(id, large))
        return large, [thing for thing in small if id(thing) not in either]

    def weighed(self, things: list[Any]) -> list[tuple[list[Any], float]]:
        """The large ones of `things`, and the small ones that are in the sample, with how many each of these stands for."""
        large, small = self.of(things, frozenset(kinds(things)))
        return [(large, 1.0), (small, self.weight)]
