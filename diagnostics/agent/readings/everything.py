"""Every object of a census, once: what the garbage collector tracks, and what these hold directly that it does not track."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import filterfalse
from types import CodeType
from typing import Any

from . import blocks
from .graph import LateError, all_referents, in_time, tracked
from .sampling import PARTS, Sample
from .walk.steps import Addresses, kinds, of_kinds

__all__ = ["NUMBERS", "Everything"]

# Lists of objects, each list with how many objects each in it stands for.
_Weighed = list[tuple[list[Any], float]]

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
        self.until = until
        self.parts = parts
        self.unhashable: str | None = None
        self.sample = Sample(parts) if parts < PARTS else None
        self.left_out: str | None = None
        self.too_many_numbers: str | None = None
        self._seen = Addresses()
        self._kinds = _Untracked()

    def __iter__(self) -> Iterator[tuple[list[Any], float]]:
        things, self.unhashable = tracked()
        # Ids of untracked objects that were looked at, and of those that every program has. Made behind the line above: these
        # numbers are not the service's.
        self._seen = Addresses()
        self._seen.fresh(list(_SHARED))
        looked_at = 0
        held_by = self._held_by if self.sample is None else self._sample_held_by
        try:
            for batch in in_time(things, self.until, self._seen.__len__):
                yield from self._weighed(batch)
                holders = batch
                while holders:
                    counted, holders = held_by(holders)
                    yield from counted
                if len(self._seen) > _MAX_NUMBERS and self.too_many_numbers is None:
                    self._kinds.leave_out(NUMBERS)
                    self.too_many_numbers = (
                        f"numbers: this service holds more than {_MAX_NUMBERS:,} of them and of texts"
                    )
                looked_at += len(batch)
        except LateError:
            of = f"{looked_at:,} of the {len(things):,} objects that the collector tracks"
            self.left_out = f"all but {of}, and what these hold directly: the reading was ended at its deadline"
        self._seen = Addresses()

    def _weighed(self, things: list[Any]) -> _Weighed:
        return [(things, 1.0)] if self.sample is None else self.sample.weighed(things)

    def _held_by(self, holders: list[Any]) -> tuple[_Weighed, list[Any]]:
        """Direct referents of `holders` that the collector does not track and that were not seen before, and those of them
        that may hold others."""
        referents = all_referents(holders)
        fresh = self._seen.fresh(_not_tracked(of_kinds(referents, self._kinds.among(referents))))
        return [(fresh, 1.0)], of_kinds(fresh, _PLAIN)

    def _sample_held_by(self, holders: list[Any]) -> tuple[_Weighed, list[Any]]:
        """As `_held_by`, of the sample; but all that may hold others, since what these hold may be in it."""
        assert self.sample is not None
        referents = all_referents(holders)
        untracked = self._kinds.among(referents)
        plain = Addresses().fresh(_not_tracked(of_kinds(referents, _PLAIN)))
        # Most objects are in no sample: what comes first must cost little for each of them.
        large, small = self.sample.of(referents, untracked - _PLAIN)
        large_plain, small_plain = self.sample.of(plain, _PLAIN)
        # A small one is looked into again by each thousand of its holders; of a large one that would be too much.
        known = Addresses()
        known.fresh(self._seen.among(large_plain))
        counted = [
            (self._seen.fresh(large + large_plain), 1.0),
            (self._seen.fresh(small + small_plain), self.sample.weight),
        ]
        return counted, known.fresh(plain)


def _not_tracked(things: list[Any]) -> list[Any]:
    return list(filterfalse(gc.is_tracked, things))


class _Untracked:
    """The classes whose instances the collector does not track, or not always; added to as instances are met."""

    def __init__(self) -> None:
        self.met: set[type] = set(_PROGRAM)
        self.kinds: frozenset[type] = _PLAIN

    def among(self, things: list[Any]) -> frozenset[type]:
        fresh = set(kinds(things)) - self.met
        if fresh:
            self.met |= fresh
            self.kinds |= {kind for kind in fresh if blocks.has_no_header(kind)}
        return self.kinds

    def leave_out(self, kinds: frozenset[type]) -> None:
        self.met |= kinds
        self.kinds -= kinds
