"""The store that several relays share through Redis: each copies the logs of its own streams there, and reads those of others.

The law of this file. The log in the memory of the relay that has the stream is the true one, and Redis is its copy: nothing
waits for Redis. What Redis has missed (while it was away) or lost (when it restarted) is copied again, as far as the log still
has it; what the log drops for room is dropped from Redis, too, so that the bounds on a relay's logs are bounds on its share of
Redis. Events of all streams are copied together, 20 to 200 ms after each other.

A stream whose relay is gone (its lease has run out) is ended, in Redis, by whichever relay has a client that follows it: with
an error as its last event. While Redis cannot be reached, streams go on; who comes back to another relay than that of its
stream gets an error, and those that follow a stream there wait for `patience` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeVar

from ..errors import BadRequestError, ResumeUnavailableError, StreamBrokenError, StreamExpiredError, StreamNotFoundError
from ..redis_client import FAILURES, end
from .copies import Copies
from .ids import Position
from .log import StreamLog
from .logs import Bounds, Named
from .options import SharedThrough
from .redis_log import BEAT_SECONDS, LEASE_SECONDS, About, CopiedSince, RedisLog
from .store import Followed, MemoryStore
from .tails import Tails

__all__ = ["RedisStore"]

log = logging.getLogger("relay.resume")

# Between two round trips: for each stream that was copied, so that this costs the same share of a CPU however many there are.
PAUSE_A_STREAM_SECONDS: Final = 0.004
LEAST_PAUSE_SECONDS: Final = 0.02
MOST_PAUSE_SECONDS: Final = 0.2
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 0.5  # what is not copied yet is lost where this relay is killed
# A stream that is silent is copied again this often within the time that it is kept, so that it does not expire.
COPIES_PER_TIME: Final = 3
# Between two looks at a stream whose copy is behind what its client has seen.
FIRST_LOOK_SECONDS: Final = 0.02
LONGEST_LOOK_SECONDS: Final = 0.25
# The lease of a stream's relay runs out, and before it counts Redis has to have been there for a whole one.
MOST_LEASES: Final = 2
# Streams that were given up for room while Redis was away, and are to be dropped there; others expire.
MAX_DROPPED: Final = 10_000


Found = TypeVar("Found")
Verdict = Literal["found", "perhaps not yet", "nobody knows"]


class RedisStore(MemoryStore):
    """A Store over Redis."""

    shared = True

    def __init__(self, bounds: Bounds, options: SharedThrough, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(bounds, clock)
        self._redis = RedisLog(options, bounds.keep_seconds, clock)
        self._tails = Tails(self._redis, self.logs)
        self._timeout = options.timeout_seconds
        self._patience = options.patience_seconds
        self._copies = Copies()
        self._some_behind = asyncio.Event()
        self._beats = self._copied_beat = (
            0  # the last beat, and the last one after whose end all that there was is copied
        )
        self._names: dict[tuple[str, str], Named] = {}  # to be stored
        self._dropped_streams: dict[str, None] = {}  # to be dropped
        self._asked: dict[str, StreamLog] = {}  # whether others follow them is to be asked
        self._failing: set[str] = set()  # the works whose last command failed
        self._up_since: float | None = None
        self._away_since = clock()

    @property
    def state(self) -> str:  # type: ignore[override]  # MemoryStore's is a constant
        return "redis_away" if self._up_since is None else "redis"

    @asynccontextmanager
    async def serving(self, left: Callable[[], float]) -> AsyncIterator[None]:
        works: dict[str, Callable[[], Awaitable[None]]] = {
            "copy": self._copy,
            "beat": self._beat,
            "read": self._tails.read,
            "wake": self._tails.wake,
        }
        async with super().serving(left):
            tasks = [
                asyncio.create_task(self._again_and_again(name, work), name=f"relay.resume.{name}")
                for name, work in works.items()
            ]
            try:
                yield
            finally:
                await end(tasks)
                await self._copy_the_rest(left)
                await self._redis.close()

    # Called by streams

    def end(self, log: StreamLog, *, failed: bool) -> None:
        super().end(log, failed=failed)
        self._is_behind(log)

    def name(self, log: StreamLog, response_id: str, difference: int) -> None:
        super().name(log, response_id, difference)
        self._names[log.caller, response_id] = Named(log.id, difference)
        self._is_behind(log)

    def dropped(self, log: StreamLog) -> None:
        if self.logs.get(log.id, log.caller) is log:
            self._is_behind(log)
            return
        self._copies.forget(log)
        if len(self._dropped_streams) < MAX_DROPPED:
            self._dropped_streams[log.id] = None
            self._some_behind.set()

    def grew(self, log: StreamLog) -> None:
        self._is_behind(log)

    def wanted_at(self, log: StreamLog) -> float:
        if self._up_since is None and self._clock() - self._away_since < self._patience:
            return self._clock()  # nobody can say that it is not
        self._asked[log.id] = log
        return super().wanted_at(log)

    # Called for clients that come back

    async def of_response(self, response_id: str, caller: str) -> Named:
        named = self.logs.of_response(response_id, caller)
        if named is not None:
            return named

        async def look() -> tuple[Named | None, Verdict]:
            found = await self._redis.of_response(response_id, caller)
            return found, self._unknown() if found is None else "found"

        named = await self._looked_up(look)
        if named is None:
            raise StreamNotFoundError
        return named

    @asynccontextmanager
    async def follow(self, position: Position, caller: str) -> AsyncIterator[Followed]:
        stream, after = position
        if self.logs.get(stream, caller) is not None or self.logs.is_gone(stream, caller):
            async with super().follow(position, caller) as own:
                yield own
            return
        about = await self._find(stream, caller, after)
        with self._tails.following(stream, caller, after) as tail:
            if about.over and after == about.last:
                tail.log.end(failed=about.over != "ok")
            yield Followed(tail.log, own=False, taken=tail.taken)

    async def _find(self, stream: str, caller: str, after: int) -> About:
        """What is known about a stream that has all events after this one. Raises ApiError."""
        copied = CopiedSince()

        async def look() -> tuple[About | None, Verdict]:
            found = await self._look(stream, caller)
            if found is None:
                return found, self._unknown()
            if after <= found.last or found.over:
                return found, "found"
            # The client may have seen an event that its relay has not copied yet, as Redis was away, or never will, as it was
            # killed. That there is no such event is certain once its relay has copied all that it had when it was asked for.
            return found, "perhaps not yet" if copied.all(found) else "nobody knows"

        about = await self._looked_up(look)
        if about is None:
            raise StreamNotFoundError
        if about.over == "broken" and after >= about.last:
            raise StreamBrokenError
        if after > about.last:
            raise BadRequestError(
                f"the stream has no event {after}, its last one is {about.last}", param="starting_after"
            )
        if after < about.first - 1 or not about.has_events:
            raise StreamExpiredError
        return about

    async def _look(self, stream: str, caller: str) -> About | None:
        (about,) = await self._redis.about([stream])
        if about is None:
            return None
        if about.caller != caller:
            raise StreamNotFoundError
        if self._is_orphan(about):
            await self._redis.break_off(stream)
            (about,) = await self._redis.about([stream])
        return about

    def _unknown(self) -> Verdict:
        """Of what is not in Redis: after an outage the other relays have to find Redis again, too, and copy what is missing."""
        settled = self._up_since is not None and self._clock() - self._up_since > LONGEST_PAUSE_SECONDS + self._timeout
        return "perhaps not yet" if settled else "nobody knows"

    async def _looked_up(self, look: Callable[[], Awaitable[tuple[Found, Verdict]]]) -> Found:
        """What `look` finds, once that is `found`; after one time-out whatever there is. Raises ResumeUnavailableError.

        A client is ahead of the copy: its relay sends it an event, and the id of its stream, before it copies them.
        """
        began, pause = self._clock(), FIRST_LOOK_SECONDS
        try:
            while True:
                found, verdict = await look()
                looked = self._clock() - began
                if verdict == "found" or (verdict == "perhaps not yet" and looked > self._timeout):
                    return found
                if looked > self._timeout + MOST_LEASES * LEASE_SECONDS:
                    raise ResumeUnavailableError
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_LOOK_SECONDS)
        except FAILURES as error:
            raise ResumeUnavailableError from error

    def _is_orphan(self, about: About) -> bool:
        """Whether the stream's relay is gone. Not before Redis was there for a whole lease: all leases may have run out."""
        up = self._up_since is not None and self._clock() - self._up_since > LEASE_SECONDS
        return up and not about.over and about.owner_silent > LEASE_SECONDS

    # The tasks

    async def _again_and_again(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = self._clock()
            try:
                await work()
            except FAILURES as error:
                self._failing.add(name)
                self._is_away(str(error) or type(error).__name__)
            except Exception:
                log.exception("resume has a bug; it goes on")
            if self._clock() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, so that relays do not come at once
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _is_away(self, why: str) -> None:
        if self._up_since is not None:
            log.warning("redis is away, and streams cannot be resumed at other relays: %s", why)
            self._up_since, self._away_since = None, self._clock()
        if self._clock() - self._away_since >= self._patience:
            self._tails.fail(ResumeUnavailableError())

    def _goes_well(self, name: str) -> None:
        """One of the works has talked to Redis. It is back once neither beats nor copies fail: it may refuse one of them."""
        self._failing.discard(name)
        if self._up_since is None and self._failing.isdisjoint(("beat", "copy")):
            log.info("redis answers")
            self._up_since = self._clock()
            self._has_lost()

    def _has_lost(self) -> None:
        """Redis may have lost anything, as it may have restarted: each log's copy is looked at, and Redis says what it has."""
        self._copies.lost()
        self._store_names()

    def _store_names(self) -> None:
        self._names |= self.logs.responses()
        self._some_behind.set()

    async def _beat(self) -> None:
        """Say that this relay lives, and look after the streams of others that are followed here."""
        copied_at, number = self._clock(), self._beats + 1  # the one before may have been carried out
        while True:
            asked, self._asked = self._asked, {}
            followed = self._tails.streams()
            number += 1
            copied = self._copied_beat if self._some_behind.is_set() else self._beats
            beaten = await self._redis.beat(number, copied, followed, list(asked))
            if not beaten.had_lease and self._up_since is not None:
                log.info("redis has lost this relay's lease, and perhaps more: what is missing is copied again")
                self._has_lost()
            self._beats = number
            self._goes_well("beat")
            now = self._clock()
            for stream in beaten.wanted:
                self.left(asked[stream])
            for stream, about in zip(followed, await self._redis.about(followed) if followed else (), strict=True):
                if about is not None and self._is_orphan(about):
                    log.warning("the relay of a stream is gone; its clients are told")
                    await self._redis.break_off(stream)
                elif about is None or (about.last and not about.has_events):
                    for tail in self._tails.of(stream):
                        tail.missed(now)
            if now - copied_at > self.logs.bounds.keep_seconds / COPIES_PER_TIME:
                copied_at = now
                self._copies.again()
                self._store_names()
            for stream_log in self._copies.logs():
                if self.logs.get(stream_log.id, stream_log.caller) is not stream_log:
                    self._copies.forget(stream_log)  # it was kept for as long as it is to be
            await asyncio.sleep(BEAT_SECONDS)

    def _is_behind(self, log: StreamLog) -> None:
        self._copies.is_behind(log)
        if self._copies.behind:
            self._some_behind.set()

    async def _copy(self) -> None:
        while True:
            await self._some_behind.wait()
            copied = await self._copy_once()
            self._goes_well("copy")
            await asyncio.sleep(min(max(copied * PAUSE_A_STREAM_SECONDS, LEAST_PAUSE_SECONDS), MOST_PAUSE_SECONDS))

    async def _copy_the_rest(self, left: Callable[[], float]) -> None:
        """At shutdown: copy what is left, for as long as the relay has, and for one time-out in any case.

        Redis may be restarting, and reading its data: it is tried until then.
        """
        error: BaseException | None = None
        least = self._clock() + self._timeout

        async def copy() -> None:
            nonlocal error
            while self._some_behind.is_set():
                try:
                    await self._copy_once()
                except FAILURES as failure:
                    error = failure
                    await asyncio.sleep(FIRST_PAUSE_SECONDS)

        task = asyncio.create_task(copy(), name="relay.resume.copy_the_rest")
        while not task.done() and (self._clock() < least or left() > 0):
            await asyncio.wait([task], timeout=FIRST_PAUSE_SECONDS)
        await end([task])
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
        if self._some_behind.is_set():
            log.warning("the ends of streams were not copied: %s", error or "redis is too slow")

    async def _copy_once(self) -> int:
        """One round trip: the next events of the logs that are behind, as many as fit into it. Returns the number of logs."""
        if self._dropped_streams:
            dropped = list(self._dropped_streams)
            await self._redis.drop(dropped)
            for stream in dropped:
                self._dropped_streams.pop(stream, None)
        if self._names:
            names = dict(self._names)
            await self._redis.name(names)
            for key, named in names.items():
                if self._names.get(key) is named:
                    del self._names[key]
        beats = self._beats
        logs, parts = self._copies.take()
        has_all = not self._copies.behind
        try:
            differ = await self._redis.copy(parts) if parts else {}
        except BaseException:  # also where this task is cancelled: what is not copied then is copied at the end
            for stream_log, part in zip(logs, parts, strict=True):
                self._copies.copied_up_to(stream_log, part.number - 1)
            raise
        for place, last in differ.items():
            self._copies.copied_up_to(logs[place], last)
        if has_all and all(last < 0 for last in differ.values()):
            self._copied_beat = beats
        if not self._copies.behind and not self._dropped_streams and not self._names:
            self._some_behind.clear()
        return len(parts)
