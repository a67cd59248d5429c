"""What the log is told of a receiver that takes no profiles: a failure of each kind once, and when it takes them again.

A receiver that comes and goes is told of at the first, the tenth, the hundredth time.
"""

from __future__ import annotations

import logging

from ..failures import Kinds, is_due

__all__ = ["Telling"]

log = logging.getLogger("diagnostics.monitor")


class Telling:
    """`address` names the receiver in log lines."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._kinds = Kinds()
        self._now: set[str] = set()  # kinds of failure since it last took a profile
        self._told = False
        self._lost = 0

    def failed(self, kind: str, why: str) -> None:
        """A push did not succeed; `kind` is what tells this failure from others, `why` is for a reader."""
        kind = self._kinds.known_as(kind)
        if kind in self._now:
            return
        self._now.add(kind)
        times = self._kinds.count(kind)
        if is_due(times):
            again = "" if times == 1 else f", for the {times}th time"
            log.warning("no live heap is taken by %s%s: %s", self._address, again, why)
            self._told = True

    def lost(self, count: int) -> None:
        """So many profiles were given up."""
        self._lost += count

    def taken(self) -> None:
        """A push has succeeded."""
        if self._told:
            lost = f"; {self._lost} were given up meanwhile" if self._lost else ""
            log.warning("live heaps are taken again by %s%s", self._address, lost)
        self._now.clear()
        self._told = False
        self._lost = 0
