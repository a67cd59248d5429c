"""Slows whoever guesses tokens, in constant memory, and nobody who knows one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Final

__all__ = ["Guesses"]

FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 5.0
# So many wrong ones double the wait; one is forgotten in this time.
_DOUBLED_BY: Final = 10.0
_FORGOTTEN_SECONDS: Final = 6.0


class Guesses:
    """Counts wrong tokens of all callers together: a guesser has as many addresses as he likes, and no table of them is kept.

    A wrong one is answered late: after half a second, and after up to five where many were wrong of late. A right one is never
    kept waiting. With MAX_CONNECTIONS open (edge.py) that leaves 26 guesses a second: hopeless against 32 random characters.

    clock    monotonic seconds
    waiting  the peers whose answers are being kept back: their connections make room for new ones (edge.py)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong = 0.0
        self._at = clock()
        self.waiting: set[Hashable] = set()

    def seconds(self) -> float:
        """How long the answer to one more wrong token, which is counted with this, is to wait."""
        now = self._clock()
        self._wrong = max(0.0, self._wrong - (now - self._at) / _FORGOTTEN_SECONDS) + 1.0
        self._at = now
        return float(min(MOST_SECONDS, FIRST_SECONDS * 2 ** (min(self._wrong, 100.0) / _DOUBLED_BY)))

    async def wait(self, peer: Hashable) -> None:
        """Keep the answer to `peer`, an end of a connection, back."""
        self.waiting.add(peer)
        try:
            await asyncio.sleep(self.seconds())
        finally:
            self.waiting.discard(peer)
