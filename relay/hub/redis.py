"""The hub of many processes: the log of its topics is in Redis (redis_log.py), and each process mirrors the topics that it has
subscribers of.

The law of this file. One pub/sub connection brings this process the events of all its topics, however many subscribers there
are: Redis publishes each event on its topic's channel in the step that stores it. A message on a channel may be missed, a
stored event may not: each event names the one before it, so that where one is missing (after a subscription, a reconnection,
a restart of Redis) the topic is read from its Redis stream before it goes on. So subscribers get every stored event once and
in order; and where the log does not continue from their last event, they get a `relay.gap` event.

While Redis cannot be reached, subscribers stay connected for `patience` seconds; new ones and publishers get an error. The hub
reconnects with growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

from ..errors import HubUnavailableError, OverloadedError
from ..redis_client import FAILURES, end
from .ids import NOTHING, EventId
from .memory import TIDY_SECONDS
from .redis_log import Entry, Followed, RedisLog, id_of
from .topic import Topic, TopicEvent, event_of
from .topics import Topics

__all__ = ["RedisHub"]

log = logging.getLogger("relay.hub")

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
PING_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 15.0
# A topic's Redis stream expires when nobody has published to it or read it for its maximum age. So a process with subscribers
# reads it this often within that time.
LOOKS_PER_AGE: Final = 3
CHANNELS: Final = 100  # subscribed to in one command


class _Mirror:
    """This process's copy of one topic.

    topic        None until the topic was first read from Redis
    users        how many `with` blocks of RedisHub.topic use the mirror now
    ready        set while the topic is up to date with Redis, or `error` tells why it cannot be
    subscribed   whether its channel was subscribed to over the present connection
    """

    __slots__ = ("error", "ready", "subscribed", "topic", "users")

    def __init__(self) -> None:
        self.topic: Topic | None = None
        self.users = 0
        self.ready = asyncio.Event()
        self.subscribed = False
        self.error: OverloadedError | None = None


class RedisHub:
    """A Hub over Redis. `timeout` and `patience` in seconds."""

    def __init__(self, topics: Topics, store: RedisLog, timeout: float, patience: float) -> None:
        self.topics = topics
        self._log = store
        self._timeout = timeout
        self._patience = patience
        self._mirrors: dict[str, _Mirror] = {}
        self._channels: set[str] = set()  # topics whose channels are subscribed to over the present connection
        self._changed = asyncio.Event()  # set where the mirrors differ from the channels
        self._behind: dict[str, None] = {}  # topics to be read from Redis, an ordered set
        self._some_behind = asyncio.Event()
        self._heard_at = 0.0
        self._away_since: float | None = time.monotonic()

    @property
    def state(self) -> str:
        return "redis" if self._away_since is None else "redis_away"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(self._listen(), name="relay.hub.listen"),
            asyncio.create_task(self._tidy_now_and_then(), name="relay.hub.tidy"),
        ]
        try:
            yield
        finally:
            await end(tasks)
            await self._log.close()

    async def publish(self, name: str, body: bytes) -> EventId:
        return await self._log.publish(name, body)

    @asynccontextmanager
    async def topic(self, name: str) -> AsyncIterator[Topic]:
        mirror = self._mirrors.get(name)
        if mirror is None:
            if len(self._mirrors) >= self.topics.bounds.max_topics:
                self._tidy()
            self.topics.check_room(len(self._mirrors))
            mirror = self._mirrors[name] = _Mirror()
            self._changed.set()
        mirror.users += 1
        try:
            yield await self._up_to_date(mirror)
        finally:
            mirror.users -= 1

    async def _up_to_date(self, mirror: _Mirror) -> Topic:
        """Wait until the mirror is up to date. Raises HubUnavailableError after the time-out, OverloadedError."""
        try:
            async with asyncio.timeout(self._timeout):
                await mirror.ready.wait()
        except TimeoutError:
            raise HubUnavailableError("try again") from None
        if mirror.topic is None:
            assert mirror.error is not None
            raise mirror.error
        return mirror.topic

    # The pub/sub connection

    async def _listen(self) -> None:
        """Connect to Redis again and again, for as long as the hub serves."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._session()
            except (HubUnavailableError, *FAILURES) as error:
                if self._away_since is None:
                    log.warning("redis is away: %s", str(error) or type(error).__name__)
                    pause = FIRST_PAUSE_SECONDS
            except Exception:
                log.exception("the hub has a bug; it connects to redis again")
            self._is_away()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, so that processes do not come at once
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _session(self) -> None:
        """Serve over one connection until it breaks. Raises its error."""
        async with aclosing(self._log.pubsub()) as pubsub:
            self._channels.clear()
            for mirror in self._mirrors.values():
                mirror.subscribed = False
            # A channel that nobody publishes on, so that the connection is subscribed to at least one, as get_message needs.
            await pubsub.subscribe(self._log.stream_of(""))
            self._heard_at = time.monotonic()
            self._changed.set()
            await _until_one_fails(
                *(
                    asyncio.create_task(work(pubsub), name="relay.hub.session")
                    for work in (self._receive, self._subscribe, self._ping)
                ),
                asyncio.create_task(self._catch_up(), name="relay.hub.catch_up"),
                asyncio.create_task(self._read_all_again(), name="relay.hub.look_again"),
            )

    def _is_away(self) -> None:
        """Redis cannot be reached: the mirrors are not up to date, and after `patience` seconds their subscribers are ended."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        for mirror in self._mirrors.values():
            mirror.ready.clear()
            if mirror.topic is not None and now - self._away_since >= self._patience:
                mirror.topic.abandon()

    def _is_back(self) -> None:
        if self._away_since is not None:
            log.info("redis answers")
            self._away_since = None

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Subscribe to the channels of new mirrors, and unsubscribe from those of mirrors that are gone, as they change."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            gone = [name for name in self._channels if name not in self._mirrors]
            new = [name for name, mirror in self._mirrors.items() if not mirror.subscribed]
            for mirror in self._mirrors.values():
                mirror.subscribed = True
            self._channels = set(self._mirrors)
            for start in range(0, len(gone), CHANNELS):
                await pubsub.unsubscribe(*map(self._log.stream_of, gone[start : start + CHANNELS]))
            for start in range(0, len(new), CHANNELS):
                await pubsub.subscribe(*map(self._log.stream_of, new[start : start + CHANNELS]))

    async def _ping(self, pubsub: PubSub) -> None:
        """Ping Redis, and raise RedisConnectionError where the connection has been silent for SILENT_SECONDS."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            if time.monotonic() - self._heard_at > SILENT_SECONDS:
                raise RedisConnectionError("redis is silent")
            await pubsub.ping()

    async def _receive(self, pubsub: PubSub) -> None:
        """Receive the connection's messages: events, and confirmations of subscriptions."""
        while True:
            message: dict[str, Any] | None = await pubsub.get_message(timeout=None)
            self._heard_at = time.monotonic()
            if message is None or not isinstance(message["channel"], bytes):
                continue
            name = self._log.name_of(message["channel"])
            if message["type"] == "message":
                self._received(name, message["data"])
            elif message["type"] == "subscribe":
                self._is_back()
                # Events from here on come over the channel; earlier ones are read from the stream.
                self._read_again(name)

    def _received(self, name: str, data: bytes) -> None:
        """Append an event that came over the channel, or read the topic again where the one before it is missing."""
        mirror = self._mirrors.get(name)
        if mirror is None:
            return
        head, _, body = data.partition(b"\n")
        event_id, before = map(id_of, head.split())
        if mirror.topic is None or before != mirror.topic.last:
            self._read_again(name)
        else:
            self.topics.append(mirror.topic, event_of(event_id, body))

    # Reading topics from their Redis streams

    def _read_again(self, name: str) -> None:
        """Have `_catch_up` read the topic."""
        if name in self._mirrors:
            self._behind[name] = None
            self._some_behind.set()

    async def _read_all_again(self) -> None:
        """Read every topic LOOKS_PER_AGE times within its maximum age, which keeps its stream from expiring."""
        while True:
            await asyncio.sleep(self.topics.bounds.history.max_seconds / LOOKS_PER_AGE)
            for name in self._mirrors:
                self._read_again(name)

    async def _catch_up(self) -> None:
        """Read the topics of `_behind` one after the other: one command at a time, however many subscribers resume at once."""
        while True:
            while not self._behind:
                self._some_behind.clear()
                await self._some_behind.wait()
            name = next(iter(self._behind))
            del self._behind[name]
            mirror = self._mirrors.get(name)
            if mirror is None:
                continue
            after = mirror.topic.last if mirror.topic else NOTHING
            try:
                followed = await self._log.follow(name, after)
            except OverloadedError as error:
                mirror.error = error
                mirror.ready.set()
                continue
            if self._mirrors.get(name) is not mirror:
                continue  # all its users left meanwhile
            self._apply(name, mirror, after, followed)
            mirror.error = None
            if followed.whole:
                mirror.ready.set()
            else:
                self._read_again(name)

    def _apply(self, name: str, mirror: _Mirror, after: EventId, followed: Followed) -> None:
        """Append the events read from Redis to the mirror's topic, or restart the topic where events between are lost."""
        topic = mirror.topic
        if topic is None:
            topic = mirror.topic = self.topics.make(name, followed.floor)
        # Events that came over the channel while the command was under way are in the topic already.
        new = [entry for entry in followed.entries if entry.id > topic.last]
        if new:
            goes_on, floor = new[0].before == topic.last, new[0].before
        else:
            goes_on, floor = after <= followed.last <= topic.last, followed.last
        if goes_on:
            for entry in new:
                self.topics.append(topic, _event_of(entry))
        else:
            log.warning("redis has lost events of a topic, or kept them for too short a time; its subscribers are told")
            self.topics.restart(topic, floor, [_event_of(entry) for entry in new])

    async def _tidy_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self._tidy()

    def _tidy(self) -> None:
        """Remove mirrors without users; their topics stay in Redis."""
        for name, mirror in list(self._mirrors.items()):
            if not mirror.users:
                del self._mirrors[name]
                if mirror.topic is not None:
                    self.topics.remove(mirror.topic)
                self._changed.set()


def _event_of(entry: Entry) -> TopicEvent:
    return event_of(entry.id, entry.body)


async def _until_one_fails(*tasks: asyncio.Task[None]) -> None:
    """Wait until one of the tasks has failed, cancel the others, and raise its error.

    Not a TaskGroup: in Python 3.11 and 3.12 that cancels the task that awaits the group, and where that task is awaiting it
    already never calls `uncancel`. The task would count as being cancelled for ever.
    """
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    errors = [None if task.cancelled() else task.exception() for task in tasks]
    try:
        for error in errors:
            if error is not None:
                raise error
    finally:
        # The raised error's traceback holds this frame, whose tasks hold the error: without this they would be a cycle.
        errors, error, tasks = [], None, ()
