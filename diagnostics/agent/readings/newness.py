"""Which objects are new since a first census, and which large ones have grown: memory that two forked children share.

A forked child cannot tell the next one which objects it saw, but both can write and read a mapping that was made before the
fork. It has one byte for each address, folded: two addresses may share a byte, and an address may be used again. Both only
make a new object look old, never an old one new: samples of new objects may miss some, and never contain an old one.

A buffer or list that grows in place is no new object. So the sizes of large objects are kept as well, by address.
"""

from __future__ import annotations

import json
import mmap
import sys
from array import array
from collections.abc import Iterable
from typing import Any

__all__ = ["FirstLook"]

# At least two bytes for each allocated block; with five million objects in 16 MiB every third new one looks old.
_LEAST, _MOST = 1 << 16, 1 << 24
# Addresses of objects are multiples of 16.
_ALIGNED_BITS = 4
# An object that is smaller than this at both censuses has not grown by an amount worth a sample.
_LARGE_BYTES = 64 * 1024
_MOST_LARGE = 4096
# So many types of the first census are kept: few of those that grow most have been none of its largest. A name has up to 120
# characters, of which JSON makes up to six bytes each.
_MOST_TYPES, _TYPE_BYTES = 1000, 6 * 120 + 60
_LENGTH_BYTES = 4


class FirstLook:
    """Made in the service, marked in the first forked child, read in the second. The service itself touches no page of it."""

    def __init__(self) -> None:
        slots = 1 << max(_LEAST - 1, 2 * sys.getallocatedblocks()).bit_length()
        self._mask = min(_MOST, slots) - 1
        self._marks = mmap.mmap(-1, self._mask + 1)
        self._parts = mmap.mmap(-1, 2)
        # Pairs of an address and a size, both 8 bytes; an address of 0 ends them.
        self._large = mmap.mmap(-1, 16 * (_MOST_LARGE + 1))
        self._types = mmap.mmap(-1, _LENGTH_BYTES + _MOST_TYPES * _TYPE_BYTES)
        self._noted = 0
        self._before: dict[int, int] | None = None  # the same, once they are asked for, in the second child

    @property
    def parts(self) -> int:
        """Of how many of 256 parts of the small objects the first census took note; see sampling.py."""
        return int.from_bytes(self._parts[:2], "little")

    @parts.setter
    def parts(self, parts: int) -> None:
        self._parts[:2] = parts.to_bytes(2, "little")

    @property
    def types(self) -> dict[str, list[int]]:
        """What the first census counted: name -> [count, bytes]; where there are too many, the largest types."""
        size = int.from_bytes(self._types[:_LENGTH_BYTES], "little")
        types: dict[str, list[int]] = json.loads(self._types[_LENGTH_BYTES : _LENGTH_BYTES + size] or b"{}")
        return types

    @types.setter
    def types(self, types: dict[str, list[int]]) -> None:
        largest = sorted(types.items(), key=lambda item: -item[1][1])[:_MOST_TYPES]
        text = json.dumps(dict(largest)).encode()
        self._types[: _LENGTH_BYTES + len(text)] = len(text).to_bytes(_LENGTH_BYTES, "little") + text

    def mark(self, things: list[Any]) -> None:
        """Record that these objects exist at the first census."""
        marks, mask = self._marks, self._mask
        for key in map(id, things):
            marks[(key >> _ALIGNED_BITS) & mask] = 1

    def note_sizes(self, things: list[Any], sizes: list[int]) -> None:
        """Record which of these objects are large at the first census."""
        if max(sizes, default=0) < _LARGE_BYTES:
            return
        for thing, size in zip(things, sizes, strict=True):
            if size >= _LARGE_BYTES and self._noted < _MOST_LARGE:
                self._large[16 * self._noted : 16 * (self._noted + 1)] = array("Q", (id(thing), size)).tobytes()
                self._noted += 1

    def grown(self, things: list[Any], sizes: Iterable[int]) -> list[tuple[Any, int]]:
        """Of these objects, which were there at the first census, large ones that have grown since, and by how many bytes."""
        if self._before is None:
            self._before = self._sizes_before()
        before = self._before
        grown = []
        for thing, size in zip(things, sizes, strict=True):
            # One that is in no full table was smaller than those in it.
            if size >= _LARGE_BYTES and len(before) < _MOST_LARGE:
                more = size - before.get(id(thing), _LARGE_BYTES)
                if more > 0:
                    grown.append((thing, more))
        return grown

    def _sizes_before(self) -> dict[int, int]:
        pairs = array("Q", self._large[:])
        ends = next(at for at in range(0, len(pairs), 2) if pairs[at] == 0)
        return dict(zip(pairs[0:ends:2], pairs[1:ends:2], strict=True))

    def new(self, things: list[Any]) -> list[Any]:
        """Those of `things` that were not marked; see the top of this file for the ones that it misses."""
        marks, mask = self._marks, self._mask
        return [thing for thing in things if not marks[(id(thing) >> _ALIGNED_BITS) & mask]]

    def close(self) -> None:
        self._marks.close()
        self._parts.close()
        self._large.close()
        self._types.close()
