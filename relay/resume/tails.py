"""The clients at this relay that follow streams of other relays, and the one task that reads those streams from Redis.

The law of this file. One blocking command reads all streams that are followed here, however many clients follow them. Redis is
the buffer of a slow client: while TAIL_BYTES wait for it, its stream is not read for it. A client gets the events that follow
its own last one, in order and without a gap, or an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ..errors import ApiError, StreamBrokenError, StreamExpiredError
from .log import EVENT_OVERHEAD_BYTES, StreamLog
from .logs import StreamLogs
from .redis_log import LEASE_SECONDS, Entry, RedisLog

__all__ = ["Tail", "Tails"]

TAIL_BYTES: Final = 64 * 1024
# A client waits for so long for events that are in Redis no more: where it has lost them, their relay copies them again.
MISSED_SECONDS: Final = LEASE_SECONDS


class Tail:
    """One client's part of a stream: `log` has the events that were read for it and that it has not taken."""

    __slots__ = ("_logs", "_missed", "_tails", "after", "log")

    def __init__(self, stream: str, caller: str, after: int, logs: StreamLogs, tails: Tails) -> None:
        self.log = StreamLog(stream, caller, first=after + 1)
        self.after = after
        self._logs = logs
        self._tails = tails
        self._missed: tuple[int, float] | None = None

    @property
    def wants_more(self) -> bool:
        return not self.log.is_over and self.log.held < TAIL_BYTES

    def taken(self, number: int) -> None:
        """The client has taken all events up to this one."""
        log, wanted_more = self.log, self.wants_more
        while log and log.first <= number:
            self._logs.charge(-log.forget_oldest())
        if not wanted_more and self.wants_more:
            self._tails.changed()

    def give(self, entries: Sequence[Entry]) -> None:
        """Entries that were read: events, and perhaps the end. As many are taken as there is room for."""
        log = self.log
        for entry in entries:
            if not self.wants_more:
                return
            if entry.over:
                self._end(entry)
            elif entry.number == log.last + 1:
                self._logs.charge(
                    len(entry.event) + EVENT_OVERHEAD_BYTES
                )  # first: the client may take the event at once
                log.append((entry.event,))
            elif entry.number > log.last:
                self.fail(StreamExpiredError())  # events between were dropped
                return

    def fail(self, error: ApiError) -> None:
        """No more will come."""
        for follower in tuple(self.log.followers):
            follower.broken(error)

    def missed(self, now: float) -> None:
        """The stream's events are not in Redis: no more will come, unless its relay copies them again in time."""
        if not self.wants_more:
            return
        if self._missed is None or self._missed[0] != self.log.last:
            self._missed = self.log.last, now
        elif now - self._missed[1] > MISSED_SECONDS:
            self.fail(StreamExpiredError())

    def drop(self) -> None:
        """The client has left."""
        self.taken(self.log.last)

    def _end(self, entry: Entry) -> None:
        last = entry.number - 1
        if self.log.last < last:
            self.fail(StreamExpiredError())
        elif entry.over == "broken" and self.after >= last:
            # The client had got more from the relay that is gone than was stored: the error has the number of an event.
            self.fail(StreamBrokenError())
        else:
            self.log.end(failed=entry.over != "ok")


class Tails:
    """All tails, and their reader."""

    def __init__(self, redis: RedisLog, logs: StreamLogs) -> None:
        self._redis = redis
        self._logs = logs
        self._tails: dict[str, dict[Tail, None]] = {}  # by stream
        self._changed = asyncio.Event()
        self._blocks = False  # the reader waits for Redis
        self._to_wake = asyncio.Event()

    def streams(self) -> list[str]:
        """The streams that clients follow here."""
        return list(self._tails)

    def of(self, stream: str) -> tuple[Tail, ...]:
        return tuple(self._tails.get(stream, ()))

    @contextmanager
    def following(self, stream: str, caller: str, after: int) -> Iterator[Tail]:
        """A tail, for as long as the `with` block runs."""
        tail = Tail(stream, caller, after, self._logs, self)
        self._tails.setdefault(stream, {})[tail] = None
        self.changed()
        try:
            yield tail
        finally:
            tail.drop()
            del self._tails[stream][tail]
            if not self._tails[stream]:
                del self._tails[stream]

    def changed(self) -> None:
        """There is more to read than the reader knows of."""
        self._changed.set()
        if self._blocks:
            self._to_wake.set()

    def fail(self, error: ApiError) -> None:
        """No more will come, to any of them."""
        for stream in self.streams():
            for tail in self.of(stream):
                tail.fail(error)

    async def read(self) -> None:
        """Read until cancelled. Raises redis_client.FAILURES."""
        while True:
            self._changed.clear()
            after = self._wanted()
            if not after:
                await self._changed.wait()
                continue
            self._blocks = True
            try:
                found = await self._redis.read(after)
            finally:
                self._blocks = False
            for stream, entries in found.items():
                for tail in self.of(stream):
                    # One that is further behind than where this was read from (it came meanwhile, or has taken nothing for a
                    # while) is read for from its own place, in the next turn.
                    if tail.log.last >= after[stream]:
                        tail.give(entries)

    async def wake(self) -> None:
        """Wake the reader whenever there is more to read than it waits for, until cancelled. Raises redis_client.FAILURES."""
        while True:
            await self._to_wake.wait()
            self._to_wake.clear()
            await self._redis.wake()

    def _wanted(self) -> dict[str, int]:
        """The numbers after which to read, by stream: of several tails of one stream, the least."""
        wanted = {}
        for stream, tails in self._tails.items():
            numbers = [tail.log.last for tail in tails if tail.wants_more]
            if numbers:
                wanted[stream] = min(numbers)
        return wanted
