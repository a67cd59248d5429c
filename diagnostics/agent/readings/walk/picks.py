"""Which objects a census keeps as samples, while it does not know yet which types have grown."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

__all__ = ["Picks", "grew_most", "spread"]

# Of a type so many candidates are kept at most: when they are more, half as many stand for all of them.
_MOST = 4096
# So many types are traced, because one leaked entry often consists of objects of several types; and so many of those whose
# objects have memory of their own, of which at least so many came.
_TYPES, _HANDLES, _MANY = 8, 3, 20
# A type that grew by less than this share of the first one's growth is not traced.
_LEAST_SHARE = 0.02


class Picks:
    """Candidates of each class, in the order in which they were met, each with the bytes that it stands for."""

    def __init__(self) -> None:
        self._of: dict[type, list[tuple[Any, float]]] = {}

    def add(self, things: Iterable[tuple[Any, int]], weight: float) -> None:
        """`things` with their bytes. `weight`: how many objects each of them stands for."""
        of = self._of
        for thing, size in things:
            pairs = of.setdefault(type(thing), [])
            pairs.append((thing, weight * size))
            if len(pairs) > _MOST:
                each = sum(bytes_of for _, bytes_of in pairs) / (_MOST // 2)
                pairs[:] = [(picked, each) for picked in spread(pairs, _MOST // 2)]

    def taken(self, names: Mapping[type, str], wanted: Iterable[str], samples: int) -> dict[str, list[Any]]:
        """So many samples of each wanted type, by its name, each standing for the same number of bytes. Nothing is kept.

        names   of all classes that are to be told; two classes may share one
        """
        pairs: dict[str, list[tuple[Any, float]]] = {name: [] for name in wanted}
        own = {id(self._of)}  # all tracked objects are looked at, and this is one
        for kind, those in self._of.items():
            if names.get(kind) in pairs:
                pairs[names[kind]] += [pair for pair in those if id(pair[0]) not in own]
        self._of.clear()
        return {name: spread(those, samples) for name, those in pairs.items()}


def spread(weighed: list[tuple[Any, float]], samples: int) -> list[Any]:
    """`samples` of the things, each standing for the same number of bytes: a large object may be taken repeatedly.

    weighed   each with its bytes
    """
    ends = list(accumulate(weight for _, weight in weighed))
    if not ends:
        return []
    return [weighed[bisect.bisect_right(ends, (place + 0.5) * ends[-1] / samples)][0] for place in range(samples)]


def grew_most(before: Mapping[str, list[int]], after: Mapping[str, list[int]], handles: Iterable[str]) -> list[str]:
    """The types to trace, those that grew by most bytes first.

    before, after   censuses: name -> [count, bytes]
    handles         types whose objects may have memory in C beside their size: of these the number that came tells
    """
    more = {
        name: [now - was for now, was in zip(row, before.get(name, (0, 0)), strict=True)] for name, row in after.items()
    }
    by_bytes = sorted((name for name in more if more[name][1] > 0), key=lambda name: -more[name][1])
    least = _LEAST_SHARE * more[by_bytes[0]][1] if by_bytes else 0
    by_count = sorted((name for name in handles if more[name][0] >= _MANY), key=lambda name: -more[name][0])
    large = [name for name in by_bytes[:_TYPES] if more[name][1] >= least]
    return list(dict.fromkeys([*large, *by_count[:_HANDLES]]))
