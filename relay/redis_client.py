"""Redis as the relay uses it: its connections, what counts as an outage, and the end of tasks that talk to it.

The law of this file: an outage of Redis is told from a bug of ours by the exception's class. redis-py raises RedisError or an
OSError for each outage but one: uvloop raises RuntimeError for a write to a connection that was closed before redis-py has
noticed. The connections made here raise redis-py's ConnectionError then, so that a RuntimeError is always a bug.

A command that was sent is not sent again, since what it does might be done twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

__all__ = ["FAILURES", "client", "end"]

FAILURES: Final = (RedisError, OSError)
CANCEL_SECONDS: Final = 0.1

if TYPE_CHECKING:
    _Base = Connection
else:
    _Base = object


class _SaysThatItIsClosed(_Base):
    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise RedisConnectionError(f"the connection was closed before a command was written: {error}") from error


class _Plain(_SaysThatItIsClosed, Connection):
    pass


class _Secure(_SaysThatItIsClosed, SSLConnection):
    pass


class _Unix(_SaysThatItIsClosed, UnixDomainSocketConnection):
    pass


_OURS: Final[dict[type[Any], type[Any]]] = {
    Connection: _Plain,
    SSLConnection: _Secure,
    UnixDomainSocketConnection: _Unix,
}


def client(url: str, *, connections: int, connect_seconds: float, answer_seconds: float) -> Redis:
    """A client of at most so many connections. All of its methods raise FAILURES.

    connect_seconds   the longest that a connection takes to be made, or to become free
    answer_seconds    the longest that an answer takes
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=connect_seconds,
        socket_timeout=answer_seconds,
        socket_connect_timeout=connect_seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    pool.connection_class = _OURS[pool.connection_class]
    return Redis.from_pool(pool)


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end. Again and again, since redis-py now and then loses a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
