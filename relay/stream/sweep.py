"""The streams that are open now, and the sweep: the one task that enforces the time-outs of all of them.

There is one task for all streams, in the relay's lifespan, because a timer would have to be set again for each event, and a
task for each stream would cost memory and wake-ups for each stream. It looks at every stream about LOOKS times within the
shortest time-out, between once in MIN_SECONDS and once in MAX_SECONDS. It takes the streams in slices that are spread over
that time, so that an event waits for one slice at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Protocol

from .patience import Limits

__all__ = ["OpenStreams", "interval_seconds", "sweep"]

log = logging.getLogger("relay.sweep")

SLICE: Final = 25  # streams looked at in one turn of the loop, at least: a fraction of a millisecond
SLICES: Final = 50  # in one sweep at most: each costs a timer and a turn of the loop
# Sweeps within the shortest time-out. A stream may be looked at early in one sweep and late in the next: a time-out is late by
# two sweeps at most, a quarter of itself.
LOOKS: Final = 8
MIN_SECONDS: Final = 0.05
MAX_SECONDS: Final = 1.0


class Swept(Protocol):
    """A stream, as the sweep and the shutdown call it."""

    def end(self, outcome: str) -> None:
        """End the stream now, with this outcome."""

    def look_after(self, now: float) -> None:
        """End the stream if it is past a time-out. `now` in monotonic seconds."""


class OpenStreams:
    """The streams that are open now, for the sweep and for the shutdown."""

    def __init__(self) -> None:
        self._streams: dict[int, Swept] = {}  # by id
        self._resumable: set[Swept] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Swept, *, resumable: bool = False) -> None:
        """`resumable`: its client can resume at another instance (Last-Event-ID)."""
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
        """The id() of every open stream, oldest first, for `get`. An id keeps no stream alive."""
        return tuple(self._streams)

    def get(self, stream_id: int) -> Swept | None:
        """The stream with this id(), None where it has ended. (A newer one may have its id now: it is looked at early.)"""
        return self._streams.get(stream_id)

    def end_all(self) -> None:
        """End every open stream with the outcome `shutdown`. Call it on the loop's thread."""
        for stream in self.all():
            stream.end("shutdown")


def interval_seconds(limits: Limits) -> float:
    """Seconds between the beginnings of two sweeps."""
    return min(MAX_SECONDS, max(MIN_SECONDS, limits.shortest / LOOKS))


async def sweep(streams: OpenStreams, limits: Limits) -> None:
    """Look after the open streams until cancelled. Holds no reference to a stream between two slices: it may end meanwhile."""
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
    for stream_id in ids:
        stream = streams.get(stream_id)
        if stream is None:
            continue
        try:
            stream.look_after(now)
        except Exception:
            # A bug that one stream meets must not stop the time-outs of all others.
            log.exception("a stream could not be looked after; it is ended")
            stream.end("shutdown")
