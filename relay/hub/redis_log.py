"""The topics' log in Redis: one Redis stream for each topic, and the two commands on it. Knows nothing of subscribers.

The scripts publish.lua and follow.lua bound the streams as a process bounds its own topics: bytes, events and age of each
topic, and the number of topics. An entry names the one before it, so that a reader knows whether it has missed one.

A connection that fails is tried again, with growing pauses, for `timeout` seconds. A command that was sent is not sent again,
since an event might be published twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..errors import RETRY_SECONDS, HubUnavailableError, OverloadedError
from ..redis_client import FAILURES, client
from .ids import EventId, parse_id
from .topic import EVENT_OVERHEAD_BYTES
from .topics import Bounds

__all__ = ["Entry", "Followed", "RedisLog", "id_of"]

log = logging.getLogger("relay.hub")

# In addition to the pub/sub connection; each is in use for one round trip.
COMMAND_CONNECTIONS: Final = 4
# The most events in one answer; their bytes are bounded by the topic's history.
FOLLOWED_EVENTS: Final = 256
FIRST_PAUSE_SECONDS: Final = 0.05

AWAY: Final = (RedisConnectionError, RedisTimeoutError, OSError)


class Entry(NamedTuple):
    """One event of the log. `before` is the id of the event before it, whether that is kept or trimmed."""

    id: EventId
    before: EventId
    body: bytes


class Followed(NamedTuple):
    """An answer of `RedisLog.follow`.

    floor     the id of the newest event that was trimmed, or where the topic began
    last      the id of the newest event
    entries   the events after the id that was asked for
    """

    floor: EventId
    last: EventId
    entries: list[Entry]

    @property
    def whole(self) -> bool:
        """Whether `entries` reach the newest event."""
        return len(self.entries) < FOLLOWED_EVENTS


class RedisLog:
    """The log. `prefix` begins every key; `timeout` in seconds, of a command and of a connection."""

    def __init__(self, url: str, prefix: str, timeout: float, bounds: Bounds) -> None:
        self._prefix = f"{prefix}topic:"
        self._index = f"{prefix}topics"
        self._timeout = timeout
        self._bounds = bounds
        self._client = client(url, connections=COMMAND_CONNECTIONS + 1, connect_seconds=timeout, answer_seconds=timeout)
        folder = Path(__file__).parent
        self._publish = self._client.register_script((folder / "publish.lua").read_text(encoding="utf-8"))
        self._follow = self._client.register_script((folder / "follow.lua").read_text(encoding="utf-8"))

    async def close(self) -> None:
        await self._client.aclose()

    def stream_of(self, name: str) -> str:
        """The key of the topic's stream, which is also the name of its channel."""
        return self._prefix + name

    def name_of(self, stream: bytes) -> str:
        return stream.decode().removeprefix(self._prefix)

    def pubsub(self) -> PubSub:
        """A pub/sub connection, which the caller closes."""
        return self._client.pubsub()

    async def publish(self, name: str, body: bytes) -> EventId:
        """Append an event, `body` being its SSE fields without the id. Raises HubUnavailableError and OverloadedError."""
        history = self._bounds.history
        arguments = (
            body, history.max_events, history.max_bytes, EVENT_OVERHEAD_BYTES, history.max_seconds, self._bounds.max_topics,
        )  # fmt: skip
        return id_of(await self._run(self._publish, name, arguments, "the event may have been published, or not"))

    async def follow(self, name: str, after: EventId) -> Followed:
        """Read the events after an id. Raises HubUnavailableError and OverloadedError."""
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
        """A connection of the pool, connected. Raises HubUnavailableError."""
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
    """Parse an id that Redis returned."""
    event_id = parse_id(text.decode())
    assert event_id is not None, text
    return event_id
