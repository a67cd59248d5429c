"""The streams that are open now, and the one sweep that looks after all of them.

There is one task for all streams, in the relay's lifespan, because a timer would have to be set again for each event, and a
task for each stream would cost memory and wake-ups for each stream. It visits every stream at least LOOKS times within the
shortest time-out, but at most once a second. It visits the streams in slices that are spread over that time, so that an event
waits for one slice at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Protocol

from .patience import Limits

__all__ = ["OpenStreams", "interval_seconds", "sweep"]

log = logging.getLogger("relay.sweep")

SLICE: Final = 25  # a fraction of a millisecond, which is what an event may wait for it
SLICES: Final = 50  # in a sweep at most: each is a timer and a turn of the loop, and these add up
# Within the shortest time-out. A stream may be looked at early in one sweep and late in the next: a time-out is late by two
# sweeps at most, a quarter of itself.
LOOKS: Final = 8
MIN_SECONDS: Final = 0.05
MAX_SECONDS: Final = 1.0


class Swept(Protocol):
    def end(self, outcome: str) -> None: ...

    def look_after(self, now: float) -> None: ...


class OpenStreams:
    """The streams that are open now, for the sweep and for the shutdown."""

    def __init__(self) -> None:
        self._streams: dict[int, Swept] = {}  # by id
        self._resumable: set[Swept] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Swept, *, resumable: bool = False) -> None:
        """`resumable`: its client can go on elsewhere where this ends."""
        self._streams[id(stream)] = stream
        if resumable:
            self._resumable.add(stream)

    def discard(self, stream: Swept) -> None:
        self._streams.pop(id(stream), None)
        self._resumable.discard(stream)

    def resumable(self) -> tuple[Swept, ...]:
        return tuple(self._resumable)

    def all(self) -> tuple[Swept, ...]:
        return tuple(self._streams.values())

    def ids(self) -> tuple[int, ...]:
        """The id() of every open stream, oldest first, to be given to `get`. An id keeps no stream alive."""
        return tuple(self._streams)

    def get(self, known: int) -> Swept | None:
        """The stream with this id(), None where it has ended. (A newer one may have its id now; it is swept early.)"""
        return self._streams.get(known)

    def end_all(self) -> None:
        """End every open stream with the outcome `shutdown`. Call it on the loop's thread."""
        for stream in self.all():
            stream.end("shutdown")


def interval_seconds(limits: Limits) -> float:
    """Between two sweeps."""
    return min(MAX_SECONDS, max(MIN_SECONDS, limits.shortest / LOOKS))


async def sweep(streams: OpenStreams, limits: Limits) -> None:
    """Look after the open streams until cancelled. It holds none of them: they may end meanwhile."""
    interval = interval_seconds(limits)
    while True:
        began = time.monotonic()
        ids = streams.ids()
        size = max(SLICE, len(ids) // SLICES)
        pause = interval / (len(ids) // size + 1)
        for start in range(0, len(ids), size):
            _look_after(streams, ids[start : start + size])
            await asyncio.sleep(pause)
        await asyncio.sleep(max(0.0, began + interval - time.monotonic()))


def _look_after(streams: OpenStreams, ids: tuple[int, ...]) -> None:
    now = time.monotonic()
    for known in ids:
        stream = streams.get(known)
        if stream is None:
            continue
        try:
            stream.look_after(now)
        except Exception:
            # One stream's bug must not be the end of all time-outs; it is loud, and that stream is ended.
            log.exception("a stream could not be looked after; it is ended")
            stream.end("shutdown")
