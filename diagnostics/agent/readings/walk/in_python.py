"""The steps of a walk in Python, for an installation without the extension `_walk`, which does the same.

Objects are told apart by their addresses, and nothing of theirs is called. Of their classes the hash is asked for, as by every
set; classes.py leaves out those that have none.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import compress
from typing import Any

__all__ = ["Addresses", "drawn", "kinds", "of_kinds"]

# Of an address.
_BYTES, _VALUES = 8, 256


class Addresses:
    """A set of objects by their addresses, which holds none of them; with a number for each. `in` takes an address."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def fresh(self, things: list[Any], number: int = 0, but: Addresses | None = None, /) -> list[Any]:
        """Those of the list that are in neither this set nor `but`, each once. They are added, with the number."""
        fresh = dict(zip(map(id, things), things, strict=True))
        for known in fresh.keys() & self._numbers.keys():
            del fresh[known]
        if but is not None:
            for known in fresh.keys() & but._numbers.keys():  # noqa: SLF001  # of this very class
                del fresh[known]
        self._numbers.update(dict.fromkeys(fresh, number))
        return list(fresh.values())

    def add(self, addresses: Iterable[int], /) -> None:
        """Add the objects that have these addresses, each with the number 0."""
        for address in addresses:
            self._numbers.setdefault(address, 0)

    def among(self, things: list[Any], /) -> list[Any]:
        """Those of the list that are in this set, each as often as it is in the list."""
        return list(compress(things, map(self._numbers.__contains__, map(id, things))))

    def number(self, address: int, /) -> int | None:
        """The number that came with it; None where it is not in this set."""
        return self._numbers.get(address)

    def __contains__(self, address: int) -> bool:
        return address in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)


def kinds(things: list[Any], /) -> list[type]:
    """Their classes, each once."""
    return list(dict.fromkeys(map(type, things)))


def of_kinds(things: list[Any], kinds: frozenset[type], /) -> list[Any]:
    """Those whose class is one of these."""
    return list(compress(things, map(kinds.__contains__, map(type, things))))


def drawn(things: list[Any], numbers: bytes, parts: int, /) -> list[Any]:
    """Those whose address is in the sample.

    numbers   for each of an address's eight bytes a table of 256 random numbers below 256: those of its bytes, added without
              carry, are the number of an address (tabulation hashing)
    parts     addresses whose number is below this are in the sample
    By bytes of all addresses at a time, since objects are many.
    """
    addresses = array("Q", map(id, things)).tobytes()
    mixed = 0
    for place in range(_BYTES):
        table = numbers[_VALUES * place : _VALUES * (place + 1)]
        mixed ^= int.from_bytes(addresses[place::_BYTES].translate(table), "little")
    is_drawn = bytes(number < parts for number in range(_VALUES))
    return list(compress(things, mixed.to_bytes(len(things), "little").translate(is_drawn)))
