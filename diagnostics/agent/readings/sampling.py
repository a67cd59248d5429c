"""Which objects a census looks at in a large service, and how far its figures may be off.

Where there are millions, looking at each takes too long. Then the large ones are all looked at, and of the small ones those
whose address is in the sample: each stands for several. Whether an address is in it does not depend on what lies there, so each
object has the same chance (Poisson sampling), and an object that two censuses see is in both or in none: their difference is
uncertain only by what came and went between them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import compress
from typing import Any

from .graph import sizes_of

__all__ = ["LARGE_BYTES", "PARTS", "Sample", "parts_for"]

# An object of this size or more is looked at in any case: one that stood for ten would be most of an estimate.
LARGE_BYTES = 4096
# A sample is so many parts of this many.
PARTS = 256
# All are looked at where the collector tracks at most so many: that takes two seconds on a slow machine, with what they hold.
_ALL = 500_000
# Of more than these, so many by expectation, and what they hold.
_SOME = 200_000
# Of an address.
_BYTES = 8


def parts_for(tracked: int) -> int:
    """Of 256 parts of the objects how many are to be looked at, where the collector tracks `tracked`."""
    return PARTS if tracked <= _ALL else max(1, PARTS * _SOME // tracked)


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
        self._tables = list(_shuffled(_BYTES))
        self.is_drawn = bytes(number < parts for number in range(256))

    def of(self, things: list[Any]) -> tuple[list[Any], list[Any]]:
        """(the large ones of `things`, the small ones of them that are in the sample)."""
        sizes = list(sizes_of(things))
        drawn = list(compress(things, self.numbers(things).translate(self.is_drawn)))
        if max(sizes, default=0) < LARGE_BYTES:
            return [], drawn
        large = [thing for thing, size in zip(things, sizes, strict=True) if size >= LARGE_BYTES]
        either = set(map(id, large))
        return large, [thing for thing in drawn if id(thing) not in either]

    def numbers(self, things: list[Any]) -> bytes:
        """A random number below 256 for each of `things`, made from its address by tabulation hashing: each byte of the address
        stands for a random number, and these are added without carry. By bytes of all addresses at a time, since objects
        are many.
        """
        addresses = array("Q", map(id, things)).tobytes()
        mixed = 0
        for place, table in enumerate(self._tables):
            mixed ^= int.from_bytes(addresses[place::_BYTES].translate(table), "little")
        return mixed.to_bytes(len(things), "little")
