"""The container on a way that an agent's capture tells: the one with most entries, which is what grows or fills.

As the agent words them: `deque[1800 of at most 4000]`, `functools._lru_cache_wrapper of at most 128 -> dict[90]`, and of a list
that was made with all its places and is being filled `list[1800 of at most 4000]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LENGTH", "Container", "container_of", "container_on"]

LENGTH = r"\[(\d+)(?: of at most (\d+))?\]"
_LENGTH = re.compile(LENGTH)
_CACHE = re.compile(r"_lru_cache_wrapper of at most (\d+)$")
# An attribute of an instance, `sqlalchemy.Session.identity_map`: its package.
_OWNER = re.compile(r"(\w+)(?:\.\w+){2,}$")


@dataclass(frozen=True, slots=True)
class Container:
    """A container on a way.

    name      as it is called where it is: with what refers to it
    length    its entries; `most`: how many it takes, None where it does not say
    is_last   whether its entries are the objects that the way leads to
    """

    name: str
    length: int
    most: int | None
    is_last: bool


def container_of(path: str) -> Container | None:
    """The container with most entries on a way, the last one of several; None where there is none."""
    parts = path.split(" -> ")
    lengths = [(int(found[1]), place) for place, part in enumerate(parts) if (found := _LENGTH.search(part))]
    if not lengths:
        return None
    length, place = max(lengths)
    found = _LENGTH.search(parts[place])
    cache = _CACHE.search(parts[place - 1]) if place else None
    most = (found[2] if found else None) or (cache[1] if cache else None)
    return Container(_named(parts, place), length, None if most is None else int(most), place == len(parts) - 2)


def container_on(path: str) -> str:
    """What the container with most entries on a way is called; without one the way's last two parts."""
    parts = path.split(" -> ")
    found = container_of(path)
    return found.name if found is not None else " -> ".join(parts[-2:])


def _named(parts: Sequence[str], place: int) -> str:
    """With what refers to it. A library's object within another one of its own says little: then from the first of these on,
    with what refers to that, which is whose it is."""
    first = max(0, place - 1)
    package = _OWNER.match(parts[first])
    if package is not None:
        while first > 0 and (above := _OWNER.match(parts[first - 1])) and above[1] == package[1]:
            first -= 1
        if first < place - 1:
            first = max(0, first - 1)
    return " -> ".join(parts[first : place + 1])
