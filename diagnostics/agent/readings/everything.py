"""Every object of a census, once: what the garbage collector tracks, and what these hold directly that it does not track."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import filterfalse
from types import CodeType
from typing import Any

from . import blocks
from .classes import of_kinds
from .graph import LateError, all_referents, in_time, tracked
from .sampling import PARTS, Sample

__all__ = ["NUMBERS", "Everything"]

_PLAIN = frozenset({dict, tuple})
# Types without a GC header that are not counted: code and singletons are no data.
_PROGRAM: frozenset[type] = frozenset({CodeType, type(None), type(Ellipsis), type(NotImplemented), bool})
# Numbers are worth counting: of a list with a thousand floats the list takes 8 KiB and the floats 24 KiB.
NUMBERS = frozenset({int, float})
# The id of each untracked object is kept to the end of the census: beyond this many, numbers are left out.
_MAX_NUMBERS = 2_000_000


# CPython has only one of each: who holds it, does not hold memory.
_SHARED = (*range(-5, 257), *map(chr, range(256)), *(bytes([each]) for each in range(256)), "", b"")


class Everything:
    """Every object of the census, once, in pairs of a list of some thousands and how many objects each of them stands for.

    until             deadline, monotonic seconds, at which the iteration ends early
    parts             so many of 256 parts of the small objects are looked at; see sampling.py
    sample            which these are; None where it is all
    too_many_numbers  a sentence where numbers are too many to be counted, else None
    unhashable        a sentence on the objects that are left out because of their classes, None where there are none
    left_out          a sentence saying how many of all objects were not reached by the deadline; None where all were
    """

    def __init__(self, until: float, parts: int = PARTS) -> None:
        self._until = until
        self.unhashable: str | None = None
        self.sample = Sample(parts) if parts < PARTS else None
        self.left_out: str | None = None
        self.too_many_numbers: str | None = None
        self._seen: set[int] = set()
        self._kinds = _Untracked()

    def __iter__(self) -> Iterator[tuple[list[Any], float]]:
        things, self.unhashable = tracked()
        # Ids of untracked objects that were looked at, and of those that every program has. Made behind the line above: these
        # numbers are not the service's.
        self._seen = set(map(id, _SHARED))
        looked_at = 0
        try:
            for batch in in_time(things, self._until, self._seen.__len__):
                yield from self._weighed(batch)
                fresh = self._untracked(batch)
                while fresh:
                    yield from self._weighed(fresh)
                    fresh = self._untracked(list(of_kinds(fresh, _PLAIN)))
                if len(self._seen) > _MAX_NUMBERS and self.too_many_numbers is None:
                    self._kinds.leave_out(NUMBERS)
                    self.too_many_numbers = (
                        f"numbers: this service holds more than {_MAX_NUMBERS:,} of them and of texts"
                    )
                looked_at += len(batch)
        except LateError:
            of = f"{looked_at:,} of the {len(things):,} objects that the collector tracks"
            self.left_out = f"all but {of}, and what these hold directly: the reading was ended at its deadline"
        self._seen = set()

    def _weighed(self, things: list[Any]) -> Iterator[tuple[list[Any], float]]:
        if self.sample is None:
            yield things, 1.0
            return
        large, small = self.sample.of(things)
        yield large, 1.0
        yield small, self.sample.weight

    def _untracked(self, holders: list[Any]) -> list[Any]:
        """Direct referents of `holders` that the collector does not track and that were not seen before; with a sample, those
        in it, the large ones, and all that may hold others."""
        referents = all_referents(holders)
        kinds = self._kinds.among(referents)
        if self.sample is None:
            things = list(filterfalse(gc.is_tracked, of_kinds(referents, kinds)))
        else:
            large, small = self.sample.of(list(of_kinds(referents, kinds - _PLAIN)))
            things = [*large, *small, *filterfalse(gc.is_tracked, of_kinds(referents, _PLAIN))]
        fresh = dict(zip(map(id, things), things, strict=True))
        for known in self._seen.intersection(fresh):
            del fresh[known]
        self._seen.update(fresh)
        return list(fresh.values())


class _Untracked:
    """The classes whose instances the collector does not track, or not always; added to as instances are met."""

    def __init__(self) -> None:
        self.met: set[type] = set(_PROGRAM)
        self.kinds: frozenset[type] = _PLAIN

    def among(self, things: list[Any]) -> frozenset[type]:
        fresh = set(map(type, things)) - self.met
        if fresh:
            self.met |= fresh
            self.kinds |= {kind for kind in fresh if blocks.has_no_header(kind)}
        return self.kinds

    def leave_out(self, kinds: frozenset[type]) -> None:
        self.met |= kinds
        self.kinds -= kinds
