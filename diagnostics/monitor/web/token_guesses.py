"""Slows the guessing of tokens, in constant memory, without slowing clients with a valid one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Final

__all__ = ["Guesses"]

FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 5.0
# So many wrong tokens double the wait; one less is counted after each of these intervals.
_DOUBLED_BY: Final = 10.0
_FORGOTTEN_SECONDS: Final = 6.0


class Guesses:
    """Counts wrong tokens of all clients together: an attacker may have any number of addresses, so there is no table of them.

    The answer to a wrong token is delayed: by half a second, and up to five where many were wrong recently. A valid one is
    never delayed. With MAX_CONNECTIONS open (edge.py) that leaves 26 guesses a second: hopeless against 32 random characters.
    clock    monotonic seconds
    waiting  the peers whose answers are delayed now: their connections are closed first for new ones (edge.py)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong = 0.0
        self._at = clock()
        self.waiting: set[Hashable] = set()

    def seconds(self) -> float:
        """Count one more wrong token; returns the seconds by which its answer must be delayed."""
        now = self._clock()
        self._wrong = max(0.0, self._wrong - (now - self._at) / _FORGOTTEN_SECONDS) + 1.0
        self._at = now
        return float(min(MOST_SECONDS, FIRST_SECONDS * 2 ** (min(self._wrong, 100.0) / _DOUBLED_BY)))

    async def wait(self, peer: Hashable) -> None:
        """Count a wrong token of `peer`, (address, port), and sleep for the delay."""
        self.waiting.add(peer)
        try:
            await asyncio.sleep(self.seconds())
        finally:
            self.waiting.discard(peer)
