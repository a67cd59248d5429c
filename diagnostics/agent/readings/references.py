"""Whether the references to an object are all known: counted, and compared with the objects that refer to it.

CPython counts the references to each object, and `gc.get_referrers` finds the objects that refer to it (its holders). Where
the count is higher than the references found, C code holds the object, or has leaked a reference to it. Where all are found,
and no root is among the holders and their holders, the object is garbage in a cycle, which the collector frees when it next
runs.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Set as AbstractSet
from typing import Any

__all__ = ["CYCLE", "LOST", "UNKNOWN", "traced", "why_alive"]

CYCLE, LOST, UNKNOWN = "cycle", "lost", "unknown"

# Limits of following holders of holders: most cycles are small, and each step searches all objects.
_MOST_HOLDERS = 64
_MOST_STEPS = 12


class _Probe:
    """An object that only the lists of this file refer to: its excess count is what these add to any object's."""


def why_alive(
    things: list[Any], until: float, *, steps: int = _MOST_STEPS, ours: AbstractSet[int] = frozenset()
) -> str:
    """Why the one object in `things`, which no root reaches, is alive: CYCLE, LOST, or UNKNOWN where it has too many holders or
    the deadline has passed. To be called in a forked child, where nothing changes; no variable may refer to the object.

    until   deadline, monotonic seconds
    steps   how many levels of holders are followed; 1: only whether C code holds the object itself
    ours    ids of the caller's own containers, which do not count as holders
    """
    return traced(things, until, steps=steps, ours=ours)[0]


def traced(
    things: list[Any], until: float, *, steps: int = _MOST_STEPS, ours: AbstractSet[int] = frozenset()
) -> tuple[str, list[Any]]:
    """As `why_alive`; for LOST also the path from the object that C code holds down to this one, both included."""
    visited: list[Any] = []
    below: dict[int, int] = {}  # id of a holder -> id of its referent on the path to the object
    ids: set[int] = set()
    fresh = [*things, _Probe()]
    for _step in range(steps):
        if time.monotonic() > until:
            return UNKNOWN, []
        ids.update(map(id, fresh))
        visited += fresh[:-1]
        asked = tuple(fresh)  # named, because from 3.13 on the call's argument tuple is among the holders
        holders = gc.get_referrers(*asked)
        own = ours | {id(things), id(visited), id(fresh), id(asked), id(holders)}
        spare = _unaccounted(fresh, len(fresh) - 1, holders)
        for place in range(len(fresh) - 1):
            # The first object is in `things` as well, and that list is among the holders.
            if _unaccounted(fresh, place, holders) > spare:
                # get_referrers finds tracked containers only: the holders of an untracked object may be untracked, too.
                if not gc.is_tracked(fresh[place]):
                    return UNKNOWN, []
                return LOST, _way(id(fresh[place]), below, visited)
        fresh = [holder for holder in holders if id(holder) not in ids and id(holder) not in own]
        del holders  # this list refers to the next level's objects
        if not fresh:
            return CYCLE, []
        if len(visited) + len(fresh) > _MOST_HOLDERS:
            return UNKNOWN, []
        for holder in fresh:
            below[id(holder)] = next(id(inside) for inside in gc.get_referents(holder) if id(inside) in ids)
        del holder
        fresh.append(_Probe())
    return UNKNOWN, []


def _way(first: int, below: dict[int, int], visited: list[Any]) -> list[Any]:
    """The objects from the one with the id `first` downwards, by their ids."""
    things = {id(thing): thing for thing in visited}
    way = [first]
    while way[-1] in below and len(way) <= _MOST_STEPS:
        way.append(below[way[-1]])
    return [things[key] for key in way if key in things]


def _unaccounted(fresh: list[Any], place: int, holders: list[Any]) -> int:
    """The reference count of `fresh[place]` minus the references found in its holders; includes those of this file's calls."""
    counted = sys.getrefcount(fresh[place])
    wanted = id(fresh[place])
    accounted = sum(sum(1 for inside in gc.get_referents(holder) if id(inside) == wanted) for holder in holders)
    # A fresh object that is itself a holder has one more reference, from the list `holders`.
    return counted - accounted - sum(1 for holder in holders if id(holder) == wanted)
