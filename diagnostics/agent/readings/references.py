"""Whether the references to an object are all known: counted, and compared with the objects that refer to it.

Python counts the references to each object, and the collector can be asked which objects refer to it. Where more are counted
than there are found, C code holds the object, or has lost a reference to it: it is kept, and by no container of Python's.
Where all are found, and nothing that is alive is among the holders and theirs, the object is garbage in a cycle, which the
collector frees when it next runs.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Set as AbstractSet
from typing import Any

__all__ = ["CYCLE", "LOST", "UNKNOWN", "traced", "why_alive"]

CYCLE, LOST, UNKNOWN = "cycle", "lost", "unknown"

# Holders of holders are followed so far: a cycle is mostly small, and each step looks through all objects.
_MOST_HOLDERS = 64
_MOST_STEPS = 12


class _Probe:
    """An object that nothing but the lists of this file holds: what is counted for it is what they count for."""


def why_alive(
    things: list[Any], until: float, *, steps: int = _MOST_STEPS, ours: AbstractSet[int] = frozenset()
) -> str:
    """Of the one object in `things`, which is reached from no root: CYCLE, LOST, or UNKNOWN where its holders are too many, or
    it is `until` (monotonic seconds). To be called in a forked child, where nothing moves; no variable may hold the object.

    steps   1: only whether C code holds the object itself
    ours    ids of the caller's own containers, which are no holders
    """
    return traced(things, until, steps=steps, ours=ours)[0]


def traced(
    things: list[Any], until: float, *, steps: int = _MOST_STEPS, ours: AbstractSet[int] = frozenset()
) -> tuple[str, list[Any]]:
    """The same, and of LOST the way from what C code holds down to the object, both included; else an empty list."""
    known: list[Any] = []
    below: dict[int, int] = {}  # id of a holder -> id of what it holds on the way to the object
    ids: set[int] = set()
    fresh = [*things, _Probe()]
    for _step in range(steps):
        if time.monotonic() > until:
            return UNKNOWN, []
        ids.update(map(id, fresh))
        known += fresh[:-1]
        asked = tuple(fresh)  # from 3.13 on the call's own tuple is among the holders
        holders = gc.get_referrers(*asked)
        own = ours | {id(things), id(known), id(fresh), id(asked), id(holders)}
        spare = _not_found(fresh, len(fresh) - 1, holders)
        for place in range(len(fresh) - 1):
            # The first object is in `things` as well, and that is found.
            if _not_found(fresh, place, holders) > spare:
                # Only containers that the collector tracks are found: of what lies in another one nothing is known.
                if not gc.is_tracked(fresh[place]):
                    return UNKNOWN, []
                return LOST, _way(id(fresh[place]), below, known)
        fresh = [holder for holder in holders if id(holder) not in ids and id(holder) not in own]
        del holders  # they hold what is asked about next
        if not fresh:
            return CYCLE, []
        if len(known) + len(fresh) > _MOST_HOLDERS:
            return UNKNOWN, []
        for holder in fresh:
            below[id(holder)] = next(id(inside) for inside in gc.get_referents(holder) if id(inside) in ids)
        del holder
        fresh.append(_Probe())
    return UNKNOWN, []


def _way(first: int, below: dict[int, int], known: list[Any]) -> list[Any]:
    """The objects from the one with the id `first` downwards, by their ids."""
    things = {id(thing): thing for thing in known}
    way = [first]
    while way[-1] in below and len(way) <= _MOST_STEPS:
        way.append(below[way[-1]])
    return [things[key] for key in way if key in things]


def _not_found(fresh: list[Any], place: int, holders: list[Any]) -> int:
    """How many references are counted for an object and not found in its holders, those of this file's own calls included."""
    counted = sys.getrefcount(fresh[place])
    wanted = id(fresh[place])
    found = sum(sum(1 for inside in gc.get_referents(holder) if id(inside) == wanted) for holder in holders)
    # Holders that are asked about are in `holders`, which is not among them.
    return counted - found - sum(1 for holder in holders if id(holder) == wanted)
