"""What a search remembers: for each object that it has come to, from where."""

from __future__ import annotations

from typing import Any

from .steps import Addresses

__all__ = ["Parents"]


class Parents:
    """For each object that a search has come to: some objects, one of which refers to it. `in` takes its id.

    A search looks into thousands of objects at a time; which of them refers to another one is found out by `graph.settle`,
    for the few where that is asked.
    """

    def __init__(self) -> None:
        self._reached = Addresses()
        self._lists: list[list[Any] | None] = []
        self._settled: dict[int, list[Any] | None] = {}

    def reach(self, things: list[Any], holders: list[Any] | None, closed: Addresses) -> list[Any]:
        """Those of `things` that the search had not come to and that are not in `closed`. `holders`: of these one refers to
        each, None for roots."""
        self._lists.append(holders)
        return self._reached.fresh(things, len(self._lists) - 1, closed)

    def of(self, key: int) -> list[Any] | None:
        """Some objects, one of which refers to the object of this id; None for a root. KeyError where it was not reached."""
        if key in self._settled:
            return self._settled[key]
        number = self._reached.number(key)
        if number is None:
            raise KeyError(key)
        return self._lists[number]

    def settle(self, key: int, parent: list[Any] | None) -> None:
        """`parent` has the one object that refers to the object of this id; None: it is a root."""
        self._settled[key] = parent

    def __contains__(self, key: int) -> bool:
        return key in self._reached

    def __len__(self) -> int:
        return len(self._reached)
