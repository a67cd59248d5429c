"""Does what is left when a request is over in steps, one in each turn of the event loop.

Spans, measurements and a line in the log are a good part of what a stream costs: an event that comes meanwhile waits for one
step of it, not for all. No queue can grow here: each request's steps are in turns that follow one another, however many do so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Step", "Turns"]

Step = Callable[[], None]


class Turns:
    """Takes steps, and knows whether some are left."""

    def __init__(self) -> None:
        self._pending = 0
        self._waiting: asyncio.Future[None] | None = None

    def take(self, *steps: Step) -> None:
        """Take these one after another. One that fails is the loop's to report, and the others follow."""
        if steps:
            self._pending += 1
            self._next(steps)

    async def over(self) -> None:
        """Wait until none are left."""
        while self._pending:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def _next(self, steps: tuple[Step, ...]) -> None:
        asyncio.get_running_loop().call_soon(self._turn, steps)

    def _turn(self, steps: tuple[Step, ...]) -> None:
        first, *others = steps
        try:
            first()
        finally:
            if others:
                self._next(tuple(others))
            else:
                self._done()

    def _done(self) -> None:
        self._pending -= 1
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
