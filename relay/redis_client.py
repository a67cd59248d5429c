"""Redis as the relay uses it: its connections, what counts as an outage, and the end of tasks that talk to it.

The law of this file: an outage of Redis is told from a bug of ours by the exception's class. redis-py raises RedisError or an
OSError for each outage but one: uvloop raises RuntimeError for a write to a connection that was closed before redis-py has
noticed. The connections made here raise redis-py's ConnectionError then, so that a RuntimeError is always a bug.

A command that was sent is not sent again, since what it does might be done twice.

Where the URL names Sentinels, each connection is made to the Redis that they call the primary at that moment. So after a
fail-over it is the callers' next try that reaches the new primary. A connection to a Redis that has become a replica is closed
at the first command that it refuses, with Sentinels and without: behind a name in DNS there is another one by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.typing import EncodableT

from .redis_url import SentinelUrl, parse_redis_url

__all__ = ["FAILURES", "Line", "client", "end", "pack_bytes"]

FAILURES: Final = (RedisError, OSError)
CANCEL_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 1.0
# What stands between two strings of a command, by the length of the second: formatting these takes longer than the rest.
_FORMATTED: Final = 1024
_SIZES: Final = tuple(b"\r\n$%d\r\n" % size for size in range(_FORMATTED))

if TYPE_CHECKING:
    _Base = Connection
else:
    _Base = object


class _Ours(_Base):
    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """A command's bytes, in one piece: `pack_bytes`, which takes a third of the time of redis-py's own."""
        return [pack_bytes(args, self.encoder.encode)]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("this Redis is not the primary any more") from error

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise RedisConnectionError(f"the connection was closed before a command was written: {error}") from error


class _Plain(_Ours, Connection):
    pass


class _Secure(_Ours, SSLConnection):
    pass


class _Unix(_Ours, UnixDomainSocketConnection):
    pass


def pack_bytes(arguments: Sequence[EncodableT], encode: Callable[[EncodableT], bytes]) -> bytes:
    """A command as Redis reads it: an array of strings (https://redis.io/docs/latest/develop/reference/protocol-spec/).

    The words of the first argument are arguments of their own ("SCRIPT LOAD"), as with redis-py.
    """
    name, *rest = arguments
    words = (name.encode() if isinstance(name, str) else bytes(encode(name))).split()
    pieces = [b"*%d" % (len(words) + len(rest))]
    for one in (*words, *rest):
        word = one if type(one) is bytes else encode(one)
        size = len(word)
        pieces += (_SIZES[size] if size < _FORMATTED else b"\r\n$%d\r\n" % size, word)
    pieces.append(b"\r\n")
    return b"".join(pieces)


class _Sentinels:
    """The Sentinels that know which Redis is the primary.

    seconds   the longest that it takes to ask all of them
    """

    def __init__(self, url: SentinelUrl, seconds: float) -> None:
        self._service = url.service
        # One that does not answer must leave time for the others; one that has answered is asked first from then on.
        each = seconds / len(url.sentinels)
        options: dict[str, Any] = {
            "socket_timeout": each,
            "socket_connect_timeout": each,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **parse_url(url.sentinel),
        }
        del options["host"]
        options["ssl"] = options.pop("connection_class", None) is SSLConnection
        self._sentinel = Sentinel(url.sentinels, sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    async def primary(self) -> tuple[str, int]:
        """Host and port of the primary. Raises one of FAILURES."""
        try:
            host, port = await self._sentinel.discover_master(self._service)
        except MasterNotFoundError as error:
            raise RedisConnectionError(f"no Sentinel knows of a primary of {self._service!r} that is up") from error
        return host, port

    async def close(self) -> None:
        await self._sentinel.aclose()


class _Following(_Base):
    """A connection to whichever Redis is the primary when it is made."""

    def __init__(self, *, sentinels: _Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options)

    async def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = await self._sentinels.primary()
        await super().connect()  # type: ignore[no-untyped-call]


class _PlainFollowing(_Following, _Plain):
    pass


class _SecureFollowing(_Following, _Secure):
    pass


class _FollowingPool(BlockingConnectionPool):
    """A pool of connections to the primary, which owns the connections to the Sentinels."""

    def __init__(self, *, sentinels: _Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(sentinels=sentinels, **options)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            await self._sentinels.close()


_OURS: Final[dict[type[Any], type[Any]]] = {
    Connection: _Plain,
    SSLConnection: _Secure,
    UnixDomainSocketConnection: _Unix,
}
_FOLLOWING: Final[dict[type[Any], type[Any]]] = {Connection: _PlainFollowing, SSLConnection: _SecureFollowing}


def client(url: str, *, connections: int, connect_seconds: float, answer_seconds: float | None) -> Redis:
    """A client of at most so many connections. All of its methods raise FAILURES.

    url               as RELAY_REDIS_URL (redis_url.py); with Sentinels, of the primary
    connect_seconds   the longest that a connection takes to be made, or to become free; and to ask the Sentinels before it
    answer_seconds    the longest that an answer takes; None: no limit, the caller has one
    """
    followed = parse_redis_url(url)
    options: dict[str, Any] = {
        "max_connections": connections,
        "timeout": connect_seconds,
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": connect_seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **parse_url(url if followed is None else followed.redis),
    }
    kind = options.pop("connection_class", Connection)
    if followed is None:
        return Redis.from_pool(BlockingConnectionPool(connection_class=_OURS[kind], **options))
    sentinels = _Sentinels(followed, connect_seconds)
    return Redis.from_pool(_FollowingPool(sentinels=sentinels, connection_class=_FOLLOWING[kind], **options))


class Line:
    """One connection, for commands that are sent together, again and again, by one task at a time.

    What a pool and a pipeline of redis-py do around each round trip takes longer than packing hundreds of events. All methods
    raise FAILURES.

    url, connect_seconds   as of `client`
    answer_seconds         the longest that all answers to one `ask` take
    """

    def __init__(self, url: str, *, connect_seconds: float, answer_seconds: float) -> None:
        self._client = client(url, connections=1, connect_seconds=connect_seconds, answer_seconds=None)
        self._answer_seconds = answer_seconds
        self._connection: Any = None
        self._asked_at = 0.0

    async def ask(self, commands: Sequence[Sequence[EncodableT]]) -> list[Any]:
        """The answers, where none is an error. Raises the first error once all answers are there."""
        connection = await self._connected()
        answers: list[Any] = []
        refusal: ResponseError | None = None
        async with asyncio.timeout(self._answer_seconds):
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    refusal = refusal or error
        if refusal is not None:
            raise refusal
        return answers

    async def close(self) -> None:
        await self._client.aclose()

    async def _connected(self) -> Any:
        """The connection. After a while it is the pool's turn, which tells whether Redis has closed it meanwhile."""
        now = time.monotonic()
        pool, connection = self._client.connection_pool, self._connection
        if connection is None or not connection.is_connected or now - self._asked_at > IDLE_SECONDS:
            if connection is not None:
                self._connection = None
                await pool.release(connection)
            self._connection = connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        self._asked_at = now
        return connection


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end. Again and again, since redis-py now and then loses a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
