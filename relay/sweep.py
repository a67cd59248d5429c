"""The streams that are open now, and the one sweep that looks after all of them.

One task in the relay's lifespan, whatever the number of streams: a timer for each event would cost each event, a task for each
stream each stream. It looks at every stream a few times within the shortest time-out, at most every second, and lets the loop
go on after every SLICE streams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Protocol

from .patience import Limits

__all__ = ["OpenStreams", "interval_seconds", "sweep"]

log = logging.getLogger("relay.sweep")

SLICE: Final = 50  # a fifth of a millisecond, which is what an event may wait for it
LOOKS: Final = 4  # within the shortest time-out: it is late by a quarter of itself at most
MIN_SECONDS: Final = 0.05
MAX_SECONDS: Final = 1.0


class Swept(Protocol):
    def end(self, outcome: str) -> None: ...

    def look_after(self, now: float) -> None: ...


class OpenStreams:
    """The streams that are open now, for the sweep and for the shutdown."""

    def __init__(self) -> None:
        self._streams: set[Swept] = set()
        self._resumable: set[Swept] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Swept, *, resumable: bool = False) -> None:
        """`resumable`: its client can go on elsewhere where this ends."""
        self._streams.add(stream)
        if resumable:
            self._resumable.add(stream)

    def discard(self, stream: Swept) -> None:
        self._streams.discard(stream)
        self._resumable.discard(stream)

    def resumable(self) -> tuple[Swept, ...]:
        return tuple(self._resumable)

    def all(self) -> tuple[Swept, ...]:
        return tuple(self._streams)

    def end_all(self) -> None:
        """End every open stream with the outcome `shutdown`. Call it on the loop's thread."""
        for stream in self.all():
            stream.end("shutdown")


def interval_seconds(limits: Limits) -> float:
    """Between two sweeps."""
    return min(MAX_SECONDS, max(MIN_SECONDS, limits.shortest / LOOKS))


async def sweep(streams: OpenStreams, limits: Limits) -> None:
    """Look after the open streams until cancelled. Between two sweeps it holds none of them: they may end meanwhile."""
    interval = interval_seconds(limits)
    while True:
        await asyncio.sleep(interval)
        await _look_after(streams.all())


async def _look_after(streams: tuple[Swept, ...]) -> None:
    for number, stream in enumerate(streams, 1):
        try:
            stream.look_after(time.monotonic())
        except Exception:
            # One stream's bug must not be the end of all time-outs; it is loud, and that stream is ended.
            log.exception("a stream could not be looked after; it is ended")
            stream.end("shutdown")
        if number % SLICE == 0:
            await asyncio.sleep(0)
