"""Limits that several relays share through Redis: token buckets, and a lease for each open stream.

The law of this file: Redis decides while it answers, and nobody waits for it longer than `timeout_seconds`. A question that is
not answered in time is None, and the gate goes by this relay's own limits; the log says so once. From then on nobody asks,
until one task, which tries again and again with growing pauses, has had an answer.

A stream's place is a lease: this relay renews those of its open streams three times within `lease_seconds`, and those of a
relay that was killed come back when they run out. A stream that was let in while Redis was away is registered as soon as it is
back, so that its caller's number is right again. Each script is one step of Redis: two relays cannot both take the last place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from redis.commands.core import AsyncScript

from ..redis_client import FAILURES, client, end
from .sharing import Leased, SharedOptions, Taken

__all__ = ["RedisLimits"]

log = logging.getLogger("relay.admission")

# Connections; each is in use for one round trip.
CONNECTIONS: Final = 8
# Renewals of a lease within its time: two may fail before the place is another's.
RENEWALS_PER_LEASE: Final = 3
# Streams whose leases one command renews or gives back.
BATCH: Final = 500
# Leases that wait to be given back. More are left to run out.
MAX_RELEASED: Final = 10_000
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0

REFUSED: Final[Mapping[int, Any]] = {0: None, 1: "all", 2: "key"}


class RedisLimits:
    """The shared limits (sharing.Shared). For one event loop only."""

    def __init__(self, options: SharedOptions) -> None:
        self._options = options
        timeout = options.timeout_seconds
        self._client = client(options.url, connections=CONNECTIONS, connect_seconds=timeout, answer_seconds=timeout)
        self._rate = self._script("rate")
        self._lease = self._script("lease")
        self._renew = self._script("renew")
        self._up = False
        self._told_away = False
        self._held: dict[str, set[str]] = {}
        self._released: list[tuple[str, str]] = []
        self._changed = asyncio.Event()  # set where there are leases to give back, or Redis is away
        self._counts: Counter[str] = Counter()

    def _script(self, name: str) -> AsyncScript:
        return self._client.register_script(Path(__file__).with_name(f"{name}.lua").read_text(encoding="utf-8"))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await self._look()
        task = asyncio.create_task(self._tend(), name="relay.admission.shared")
        try:
            yield
        finally:
            await end([task])
            # The streams have ended: their places are free at once, and not when their leases run out.
            for key, members in self._held.items():
                self._released += ((key, member) for member in members)
            with contextlib.suppress(*FAILURES):
                if self._up:
                    await self._give_back()
            await self._client.aclose()

    @property
    def state(self) -> str:
        return "redis" if self._up else "redis_away"

    def statistics(self) -> dict[str, int]:
        return {"up": int(self._up), **{word: self._counts[word] for word in ("answered", "failed", "away")}}

    # Called by the gate

    async def take(self, key: str) -> Taken | None:
        options = self._options
        keys = (f"{options.prefix}rate", f"{options.prefix}rate:{key}")
        answer = await self._ask(self._rate(keys, (repr(options.rate), repr(options.key_rate), options.burst)))
        if answer is None:
            return None
        return Taken(REFUSED[answer[0]], float(answer[1]), float(answer[2]))

    async def lease(self, key: str, member: str) -> Leased | None:
        options = self._options
        arguments = (options.key_max_streams, self._lease_milliseconds, member)
        answer = await self._ask(self._lease((self._places(key),), arguments))
        if answer is None:
            return None
        granted = bool(answer[0])
        return Leased(granted, max(0, answer[1] - granted - len(self._held.get(key, ()))))

    def hold(self, key: str, member: str) -> None:
        self._held.setdefault(key, set()).add(member)

    def drop(self, key: str, member: str) -> None:
        members = self._held.get(key)
        if members is not None:
            members.discard(member)
            if not members:
                del self._held[key]
        if self._up and len(self._released) < MAX_RELEASED:
            self._released.append((key, member))
            self._changed.set()

    # The connection

    async def _ask(self, question: Awaitable[Any]) -> Any:
        """The answer to a question; None where there is none in time, or Redis is known to be away."""
        if not self._up:
            self._counts["away"] += 1
            assert asyncio.iscoroutine(question)
            question.close()
            return None
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                answer = await question
        except FAILURES as error:
            self._counts["failed"] += 1
            self._is_away(error)
            return None
        self._counts["answered"] += 1
        return answer

    def _is_away(self, error: BaseException) -> None:
        self._up = False
        self._changed.set()
        if not self._told_away:
            self._told_away = True
            fields = {"error": type(error).__name__}
            log.warning("redis does not answer: limits are those of this relay alone", extra={"fields": fields})

    async def _look(self) -> None:
        """Ask Redis whether it is there, and register the open streams where it is."""
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                await self._client.ping()
            await self._renew_all()
        except FAILURES as error:
            self._is_away(error)
            return
        self._up = True
        if self._told_away:
            self._told_away = False
            log.info("redis answers: limits are shared")

    async def _tend(self) -> None:
        """Renew leases in time, give back those of streams that have ended, and look for a Redis that is away.

        One task for all of it, so that a renewal cannot overtake the end of its stream.
        """
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        renew_at = loop.time() + self._options.lease_seconds / RENEWALS_PER_LEASE
        while True:
            if not self._up:
                self._released.clear()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, so that relays do not come at once
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                await self._look()
                continue
            pause = FIRST_PAUSE_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(0.0, renew_at - loop.time()))
            self._changed.clear()
            try:
                await self._give_back()
                if loop.time() >= renew_at:
                    renew_at = loop.time() + self._options.lease_seconds / RENEWALS_PER_LEASE
                    await self._renew_all()
            except FAILURES as error:
                self._is_away(error)

    async def _renew_all(self) -> None:
        """Renew the leases of all open streams. Raises one of FAILURES."""
        for key, members in [(key, list(members)) for key, members in self._held.items()]:
            for start in range(0, len(members), BATCH):
                arguments: list[str | int] = [self._lease_milliseconds, *members[start : start + BATCH]]
                async with asyncio.timeout(self._options.timeout_seconds):
                    await self._renew((self._places(key),), arguments)

    async def _give_back(self) -> None:
        """Give back the leases of streams that have ended. Raises one of FAILURES; what is left then runs out by itself."""
        while self._released:
            batch, self._released = self._released[:BATCH], self._released[BATCH:]
            async with (
                asyncio.timeout(self._options.timeout_seconds),
                self._client.pipeline(transaction=False) as pipeline,
            ):
                for key, member in batch:
                    pipeline.zrem(self._places(key), member)
                await pipeline.execute()

    @property
    def _lease_milliseconds(self) -> int:
        return round(self._options.lease_seconds * 1000)

    def _places(self, key: str) -> str:
        return f"{self._options.prefix}streams:{key}"
