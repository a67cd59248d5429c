"""Runs the work at the end of a request in steps, one in each turn of the event loop.

Spans, metrics and the log line are a good part of a stream's cost: an event of another stream that comes meanwhile waits for
one step and not for all. No queue grows here: every request runs one step in each turn, so n steps take n turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["LoopTurns", "Step"]

Step = Callable[[], None]


class LoopTurns:
    """Runs steps, and counts the requests whose steps are not all done."""

    def __init__(self) -> None:
        self._pending = 0
        self._waiting: asyncio.Future[None] | None = None

    def take(self, *steps: Step) -> None:
        """Run these one after another. The loop's exception handler gets the error of one that fails; the others still run."""
        if steps:
            self._pending += 1
            self._next(steps)

    async def over(self) -> None:
        """Wait until all steps are done."""
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
