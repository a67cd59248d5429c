"""The topics' log in Redis: one stream for each topic, and the two commands on it. Knows nothing of subscribers.

What is kept is bounded there as it is here: bytes, events and age of each topic, and the number of topics; the scripts
publish.lua and follow.lua do it in the same step. An entry names the one before it, so that a reader knows whether it has
all.

A connection that cannot be had is tried again, with growing pauses, for `timeout` seconds. What was sent is not sent again:
an event that was published twice would be one too many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..errors import HubUnavailableError, OverloadedError
from .ids import EventId, parse_id
from .topic import EVENT_OVERHEAD_BYTES
from .topics import RETRY_SECONDS, Bounds

__all__ = ["FAILURES", "Entry", "Followed", "RedisLog", "id_of"]

log = logging.getLogger("relay.hub")

# Beside the one that listens: each is busy for one round trip.
COMMAND_CONNECTIONS: Final = 4
# Events in one answer; their bytes are bounded by a topic's history.
FOLLOWED_EVENTS: Final = 256
FIRST_PAUSE_SECONDS: Final = 0.05

FAILURES: Final = (RedisError, OSError)
AWAY: Final = (RedisConnectionError, RedisTimeoutError, OSError)


class Entry(NamedTuple):
    """One event of the log; `before` is the id of the one before it, kept or not."""

    id: EventId
    before: EventId
    body: bytes


class Followed(NamedTuple):
    """`floor`: the last event that is not kept, `last`: the newest one; `entries` begin after what was asked for."""

    floor: EventId
    last: EventId
    entries: list[Entry]

    @property
    def whole(self) -> bool:
        """Whether these are all that there are."""
        return len(self.entries) < FOLLOWED_EVENTS


class RedisLog:
    """See above. `prefix` begins every key; `timeout` in seconds, for a command and for a connection."""

    def __init__(self, url: str, prefix: str, timeout: float, bounds: Bounds) -> None:
        self._prefix = f"{prefix}topic:"
        self._index = f"{prefix}topics"
        self._timeout = timeout
        self._bounds = bounds
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=COMMAND_CONNECTIONS + 1,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._client = Redis.from_pool(pool)
        folder = Path(__file__).parent
        self._publish = self._client.register_script((folder / "publish.lua").read_text())
        self._follow = self._client.register_script((folder / "follow.lua").read_text())

    async def close(self) -> None:
        await self._client.aclose()

    def stream_of(self, name: str) -> str:
        """The topic's stream, and the channel on which its events are told."""
        return self._prefix + name

    def name_of(self, stream: bytes) -> str:
        return stream.decode().removeprefix(self._prefix)

    def pubsub(self) -> PubSub:
        """A connection to be told on; the caller closes it."""
        return self._client.pubsub()

    async def publish(self, name: str, body: bytes) -> EventId:
        """Raises HubUnavailableError and OverloadedError."""
        history = self._bounds.history
        arguments = (
            body, history.max_events, history.max_bytes, EVENT_OVERHEAD_BYTES, history.max_seconds, self._bounds.max_topics,
        )  # fmt: skip
        return id_of(await self._run(self._publish, name, arguments, "the event may have been published, or not"))

    async def follow(self, name: str, after: EventId) -> Followed:
        """What came after an event. Raises HubUnavailableError and OverloadedError."""
        arguments = (str(after), FOLLOWED_EVENTS, self._bounds.history.max_seconds, self._bounds.max_topics)
        floor, last, rows = await self._run(self._follow, name, arguments, "try again")
        entries = []
        for event_id, fields in rows:
            values = dict(zip(fields[::2], fields[1::2], strict=True))
            entries.append(Entry(id_of(event_id), id_of(values[b"p"]), values[b"b"]))
        return Followed(id_of(floor), id_of(last), entries)

    async def _run(self, script: Any, name: str, arguments: tuple[Any, ...], when_lost: str) -> Any:
        async with self._connection() as connection:
            try:
                return await script([self.stream_of(name), self._index], arguments, client=connection)
            except ResponseError as error:
                if str(error).startswith("TOPICS"):
                    raise OverloadedError("there are as many topics as are kept; try again", RETRY_SECONDS) from None
                log.warning("redis refuses a command: %s", str(error).partition(" ")[0])
                raise HubUnavailableError(when_lost) from error
            except FAILURES as error:
                raise HubUnavailableError(when_lost) from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Redis]:
        """A connection of the pool's, made if need be."""
        connection = self._client.client()
        pause = FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        await connection.initialize()
                        break
                    except AWAY:
                        await asyncio.sleep(pause)
                        pause *= 2
        except (TimeoutError, RedisError) as error:
            await connection.aclose()
            raise HubUnavailableError("try again") from error
        try:
            yield connection
        finally:
            await connection.aclose()


def id_of(text: bytes) -> EventId:
    """An id as Redis gives it."""
    found = parse_id(text.decode())
    assert found is not None, text
    return found
