"""The hub of one process, whose topics are in its own memory; and the interface of every hub."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from .ids import NOTHING, EventId, next_id
from .topic import Topic, event_of
from .topics import Topics

__all__ = ["TIDY_SECONDS", "Hub", "MemoryHub", "tidying"]

TIDY_SECONDS: Final = 2.0


class Hub(Protocol):
    """The interface to publish events and to get topics; implemented in memory.py and redis.py."""

    @property
    def topics(self) -> Topics: ...

    @property
    def state(self) -> str:
        """One word for /readyz: `memory`, `redis` or `redis_away`."""

    def serving(self) -> AbstractAsyncContextManager[None]:
        """Run the hub's tasks for as long as the `with` block runs, and end them after it."""

    async def publish(self, name: str, body: bytes) -> EventId:
        """Publish an event to the topic `name`; `body` is its SSE fields without the id. Returns the id. Raises ApiError."""

    def topic(self, name: str) -> AbstractAsyncContextManager[Topic]:
        """The topic with its history, created if need be, for as long as the `with` block runs. Raises ApiError."""


class MemoryHub:
    """A Hub in this process's memory. `clock` returns seconds since 1970."""

    def __init__(self, topics: Topics, clock: Callable[[], float] = time.time) -> None:
        self.topics = topics
        self.state = "memory"
        self._clock = clock
        # The greatest id of any topic so far: a topic that was removed and is made again begins after its old events.
        self._last = NOTHING

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with tidying(self.topics, self.now_ms):
            yield

    async def publish(self, name: str, body: bytes) -> EventId:
        topic = self._topic(name)
        event = event_of(next_id(topic.last, self.now_ms()), body)
        self._last = max(self._last, event.id)
        self.topics.append(topic, event)
        return event.id

    @asynccontextmanager
    async def topic(self, name: str) -> AsyncIterator[Topic]:
        yield self._topic(name)

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _topic(self, name: str) -> Topic:
        topic = self.topics.get(name)
        if topic is not None:
            return topic
        now_ms = self.now_ms()
        if len(self.topics) >= self.topics.bounds.max_topics:
            self.topics.tidy(now_ms)
        self.topics.check_room(len(self.topics))
        self._last = next_id(self._last, now_ms)
        return self.topics.make(name, self._last)


@asynccontextmanager
async def tidying(topics: Topics, now_ms: Callable[[], int]) -> AsyncIterator[None]:
    """Call `topics.tidy` every TIDY_SECONDS for as long as the `with` block runs; `now_ms` since 1970."""

    async def tidy() -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            topics.tidy(now_ms())

    task = asyncio.create_task(tidy(), name="relay.hub.tidy")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
