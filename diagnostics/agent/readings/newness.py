"""Which objects are new since a first census: a map of addresses that two forked children and the service share.

A forked child cannot tell the next one which objects it saw, but both can write and read a mapping that was made before the
fork. It has one byte for each address, folded: two addresses may share a byte, and an address may be used again. Both only
make a new object look old, never an old one new: samples of new objects may miss some, and never contain an old one.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

__all__ = ["FirstLook"]

# At least two bytes for each allocated block; with five million objects in 16 MiB every third new one looks old.
_LEAST, _MOST = 1 << 16, 1 << 24
# Addresses of objects are multiples of 16.
_ALIGNED_BITS = 4


class FirstLook:
    """Made in the service, marked in the first forked child, read in the second. The service itself touches no page of it."""

    def __init__(self) -> None:
        slots = 1 << max(_LEAST - 1, 2 * sys.getallocatedblocks()).bit_length()
        self._mask = min(_MOST, slots) - 1
        self._marks = mmap.mmap(-1, self._mask + 1)

    def mark(self, things: list[Any]) -> None:
        """Record that these objects exist at the first census."""
        marks, mask = self._marks, self._mask
        for key in map(id, things):
            marks[(key >> _ALIGNED_BITS) & mask] = 1

    def new(self, things: list[Any]) -> list[Any]:
        """Those of `things` that were not marked; see the top of this file for the ones that it misses."""
        marks, mask = self._marks, self._mask
        return [thing for thing in things if not marks[(id(thing) >> _ALIGNED_BITS) & mask]]

    def close(self) -> None:
        self._marks.close()
