"""Which objects are new since a first census, and which large ones have grown: memory that two forked children share.

A forked child cannot tell the next one which objects it saw, but both can write and read a mapping that was made before the
fork. It has one byte for each address, folded: two addresses may share a byte, and an address may be used again. Both only
make a new object look old, never an old one new: samples of new objects may miss some, and never contain an old one.

A buffer or list that grows in place is no new object. So the sizes of large objects are kept as well, by address. A list that
was made with all its places and is being filled does not grow at all: its length is kept.
"""

from __future__ import annotations

import json
import mmap
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from .walk.steps import of_kinds

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
# Lists that are shorter are rows and the like: of these some have no value in a place.
_LEAST_PLACES = 64
_LISTS: frozenset[type] = frozenset({list})


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
        # The same of lists that have places without an entry, with their lengths.
        self._lists = mmap.mmap(-1, 16 * (_MOST_LARGE + 1))
        self._noted = self._lists_noted = 0
        self._lengths_before: dict[int, int] | None = None
        self._filled: dict[int, int] = {}
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

    def note_lists(self, things: list[Any]) -> None:
        """Record how long those lists are that seem to have been made with all their places, some without an entry yet."""
        for thing in of_kinds(things, _LISTS):
            length = len(thing)
            if length < _LEAST_PLACES or self._lists_noted >= _MOST_LARGE:
                continue
            if thing[-1] is None or thing[0] is None or thing[length // 2] is None:
                at = 16 * self._lists_noted
                self._lists[at : at + 16] = array("Q", (id(thing), length)).tobytes()
                self._lists_noted += 1

    def filled(self, thing: list[Any]) -> int | None:
        """How many entries this list has, where it had places without one at the first census and is as long as then: it fills,
        and does not grow. None for any other."""
        if self._lengths_before is None:
            self._lengths_before = _pairs(self._lists)
        if self._lengths_before.get(id(thing)) != len(thing):
            return None
        if id(thing) not in self._filled:
            self._filled[id(thing)] = sum(1 for each in thing if each is not None)
        return self._filled[id(thing)]

    def grown(self, things: list[Any], sizes: Iterable[int]) -> list[tuple[Any, int]]:
        """Of these objects, which were there at the first census, large ones that have grown since, and by how many bytes."""
        if self._before is None:
            self._before = _pairs(self._large)
        before = self._before
        grown = []
        for thing, size in zip(things, sizes, strict=True):
            # One that is in no full table was smaller than those in it.
            if size >= _LARGE_BYTES and len(before) < _MOST_LARGE:
                more = size - before.get(id(thing), _LARGE_BYTES)
                if more > 0:
                    grown.append((thing, more))
        return grown

    def new(self, things: list[Any]) -> list[Any]:
        """Those of `things` that were not marked; see the top of this file for the ones that it misses."""
        marks, mask = self._marks, self._mask
        return [thing for thing in things if not marks[(id(thing) >> _ALIGNED_BITS) & mask]]

    def close(self) -> None:
        self._marks.close()
        self._parts.close()
        self._large.close()
        self._types.close()
        self._lists.close()


def _pairs(mapping: mmap.mmap) -> dict[int, int]:
    pairs = array("Q", mapping[:])
    ends = next(at for at in range(0, len(pairs), 2) if pairs[at] == 0)
    return dict(zip(pairs[0:ends:2], pairs[1:ends:2], strict=True))
