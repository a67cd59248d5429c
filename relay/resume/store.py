"""Where the logs of streams are: the interface, and the store that has them in this process's memory alone.

The streams that this process relays are always in its own memory (`StreamLogs`). A store that is shared with other processes
(redis.py) copies them, and brings the streams of the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import StreamNotFoundError
from .ids import Position
from .log import StreamLog
from .logs import Bounds, Named, StreamLogs

__all__ = ["TIDY_SECONDS", "Followed", "MemoryStore", "Store"]

TIDY_SECONDS: Final = 1.0


@dataclass(slots=True)
class Followed:
    """A log that a client follows.

    own       the stream is one that this process relays; else `log` holds only what came from the store and was not taken
    taken     called with the number of the last event that the client took
    """

    log: StreamLog
    own: bool
    taken: Callable[[int], None]


class Store(Protocol):
    """Keeps the logs, and finds them for clients that come back.

    shared   whether a client can come back to another process
    logs     those of the streams that this process relays; events are appended to them, and what else they need follows
    """

    shared: bool
    logs: StreamLogs

    @property
    def state(self) -> str:
        """One word for /readyz: `memory`, `redis` or `redis_away`."""

    def serving(self, left: Callable[[], float]) -> AbstractAsyncContextManager[None]:
        """Run the store's tasks for as long as the `with` block runs, and end them after it.

        left   how many seconds the end may still take; asked for again and again
        """

    def end(self, log: StreamLog, *, failed: bool) -> None:
        """The stream has ended; `failed`: its last event is an error."""

    def name(self, log: StreamLog, response_id: str, difference: int) -> None:
        """The upstream calls this stream's response so; `difference` as in ids.py."""

    def wanted_at(self, log: StreamLog) -> float:
        """When a client followed this log last, or does now; monotonic seconds."""

    async def of_response(self, response_id: str, caller: str) -> Named:
        """The stream whose response the upstream calls so. Raises ApiError."""

    def follow(self, position: Position, caller: str) -> AbstractAsyncContextManager[Followed]:
        """The log, for as long as the `with` block runs, with all events after a position. Raises ApiError."""


class MemoryStore:
    """A Store in this process's memory. `clock` returns monotonic seconds."""

    shared = False
    state = "memory"

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self.logs = StreamLogs(bounds, self.dropped, self.grew)
        self._clock = clock
        self._left: dict[str, float] = {}  # when the last follower of a running log left, by stream id

    @asynccontextmanager
    async def serving(self, left: Callable[[], float]) -> AsyncIterator[None]:
        task = asyncio.create_task(self._tidy(), name="relay.resume.tidy")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def end(self, log: StreamLog, *, failed: bool) -> None:
        self._left.pop(log.id, None)
        self.logs.end(log, self._clock(), failed=failed)

    def name(self, log: StreamLog, response_id: str, difference: int) -> None:
        self.logs.name(log, response_id, difference)

    def dropped(self, log: StreamLog) -> None:
        """Some of a log was dropped for room: nobody else has it."""

    def grew(self, log: StreamLog) -> None:
        """A log has got its first events since it was not `told`: nobody else is to have them."""
        log.told = True

    def wanted_at(self, log: StreamLog) -> float:
        return self._clock() if log.followers else self._left.get(log.id, 0.0)

    async def of_response(self, response_id: str, caller: str) -> Named:
        named = self.logs.of_response(response_id, caller)
        if named is None:
            raise StreamNotFoundError
        return named

    @asynccontextmanager
    async def follow(self, position: Position, caller: str) -> AsyncIterator[Followed]:
        log = self.logs.find(position.stream, caller, position.number)
        try:
            yield Followed(log, own=True, taken=_keep)
        finally:
            self.left(log)

    def left(self, log: StreamLog) -> None:
        """A client that followed a log of this process has left it."""
        if not log.is_over:
            self._left[log.id] = self._clock()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self.logs.tidy(self._clock())


def _keep(number: int) -> None:
    """A log of this process keeps what a client has taken: another one may come for it."""
