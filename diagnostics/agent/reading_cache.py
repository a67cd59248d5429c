"""Caches a reading for as long as its CPU time requires.

The agent shares the GIL with the service, so CPU time for reading thousands of streams is taken from the loop. A cached
reading is valid for two hundred times the CPU time that it took, so that making it never takes more than half a per cent of
one core, however often it is called for: hundreds of streams are read anew each time, five thousand about once a second.
"""

from __future__ import annotations

import time

from .unpatched import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ReadingCache", "rest"]

_SHARE = 200
# A reading that takes less CPU time is never cached.
_FREE_SECONDS = 0.001
# A limit, since the first reading of thousands of streams costs more than the following ones.
_LONGEST_SECONDS = 2.5


class ReadingCache:
    """Calls `make` at most as often as its CPU time allows, and returns its last result in between.

    share     a result is valid for this many times the CPU time that it took
    longest   and at most for this many seconds
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        share: float = _SHARE,
        longest: float = _LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._make = make
        self._share = share
        self._longest = longest
        self._clock = clock
        self._cpu = cpu
        self._good_until = float("-inf")
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None or self._clock() >= self._good_until:
            began = self._cpu()
            self._made = self._make()
            cost = self._cpu() - began
            good = min(self._longest, self._share * cost) if cost > _FREE_SECONDS else 0.0
            self._good_until = self._clock() + good
        return self._made

    def forget(self) -> None:
        """Drop the cached result."""
        self._made = None


def rest() -> None:
    """Sleep 0.1 ms to let the loop run: a thread that only releases the GIL has it back before another one has woken."""
    sleep(0.0001)
