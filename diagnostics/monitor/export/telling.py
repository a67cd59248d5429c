"""What the log is told of a receiver that takes no profiles: a failure of each kind once, and when it takes them again.

A receiver that comes and goes is told of at the first, the tenth, the hundredth time.
"""

from __future__ import annotations

import logging
from collections import Counter

__all__ = ["Telling"]

log = logging.getLogger("diagnostics.monitor")

# A reason may have varying text of a receiver's.
_MAX_KINDS = 50
_OTHER = "others"


class Telling:
    """`address` names the receiver in log lines."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._times: Counter[str] = Counter()
        self._now: set[str] = set()  # kinds of failure since it last took a profile
        self._told = False
        self._lost = 0

    def failed(self, kind: str, why: str) -> None:
        """A push did not succeed; `kind` is what tells this failure from others, `why` is for a reader."""
        if kind not in self._times and len(self._times) >= _MAX_KINDS:
            kind = _OTHER
        if kind in self._now:
            return
        self._now.add(kind)
        self._times[kind] += 1
        times = self._times[kind]
        if str(times).strip("0") == "1":
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
