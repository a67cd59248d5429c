"""A bounded pool of connections to upstreams: made on demand, kept while they can be used again.

An idle connection may be closed by the upstream in the moment in which it is used; the request on it then fails before any
byte of an answer came. Then, and only then, the request is sent again on a new connection.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import Final

from httpx2 import create_ssl_context

from ...errors import UpstreamTimeoutError, UpstreamUnreachableError
from ..failure_log import cannot_be_reached
from ..options import Timeouts
from .answer import Head
from .connection import UpstreamConnection
from .dial import Dialler

__all__ = ["Pool"]

KEEP_SECONDS: Final = 30.0
# The least time that a connection is idle between two requests. A broken upstream's second answer to one request comes right
# behind the first: bytes that come in this time close the connection, later ones would be taken for the next answer.
REST_SECONDS: Final = 0.02

Origin = tuple[str, str, int]


class Pool:
    """At most `max_connections` to all origins together.

    receive_buffer_bytes   as in Dialler
    read_bytes, flow_bytes, limit_bytes   as in UpstreamConnection
    rest_seconds           see REST_SECONDS
    """

    def __init__(
        self,
        *,
        max_connections: int,
        receive_buffer_bytes: int,
        read_bytes: int,
        flow_bytes: int,
        limit_bytes: int,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        self._places = asyncio.Semaphore(max_connections)
        self._dialler = Dialler(receive_buffer_bytes)
        self._read_bytes = read_bytes
        self._flow_bytes = flow_bytes
        self._limit_bytes = limit_bytes
        self._rest_seconds = rest_seconds
        self._idle: dict[Origin, deque[tuple[UpstreamConnection, float]]] = {}
        self._in_use: dict[UpstreamConnection, Origin] = {}
        self._tidying: asyncio.TimerHandle | None = None
        self.tls: ssl.SSLContext | None = None

    async def request(
        self, origin: Origin, head: bytes, body: bytes, timeouts: Timeouts
    ) -> tuple[UpstreamConnection, Head]:
        """Send a request, whose head ends with a blank line; the caller reads the response, then calls `release`.

        Raises UpstreamTimeoutError, UpstreamUnreachableError, UpstreamProtocolError. Their messages name no address, since a
        client may read them.
        """
        await self._take_place(timeouts.pool)
        try:
            idle = self._kept(origin)
            if idle is not None:
                try:
                    return await self._ask(idle, origin, head, body, timeouts.silence)
                except UpstreamUnreachableError:
                    if idle.answered:
                        raise
            # Sent again only once: a request that crashes its upstream would else be sent on every idle connection.
            fresh = await self._connect(origin, timeouts.connect)
            return await self._ask(fresh, origin, head, body, timeouts.silence)
        except BaseException:
            self._places.release()
            raise

    async def _ask(
        self,
        connection: UpstreamConnection,
        origin: Origin,
        head: bytes,
        body: bytes,
        seconds: float | None,
    ) -> tuple[UpstreamConnection, Head]:
        self._in_use[connection] = origin
        try:
            return connection, await connection.request(head, body, seconds)
        except BaseException as error:
            self._forget(connection)
            if isinstance(error, UpstreamUnreachableError) and not connection.answered:
                raise UpstreamUnreachableError("the upstream closed the connection without an answer") from error
            raise

    def release(self, connection: UpstreamConnection) -> None:
        """Give a connection back: it is kept if its response was read to its end, and closed otherwise."""
        origin = self._in_use.pop(connection, None)
        if origin is None:
            return
        if connection.reusable:
            connection.rest()
            self._idle.setdefault(origin, deque()).append((connection, time.monotonic()))
            self._tidy_later()
        else:
            connection.close()
        self._places.release()

    async def close(self) -> None:
        """Close all connections, and let the loop see them closed."""
        for connection in [*self._in_use, *(connection for idle in self._idle.values() for connection, _ in idle)]:
            connection.close()
        self._idle.clear()
        if self._tidying is not None:
            self._tidying.cancel()
        await asyncio.sleep(0)

    async def _take_place(self, patience: float | None) -> None:
        if not self._places.locked():  # nearly always: no wait, and so no timer
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(patience):
                await self._places.acquire()
        except TimeoutError as error:
            raise UpstreamTimeoutError("all connections to the upstream are in use") from error

    def _kept(self, origin: Origin) -> UpstreamConnection | None:
        """The usable connection that was released last, but at least `rest_seconds` ago; None where there is none.

        Taking the last one lets the others grow old and be closed.
        """
        idle = self._idle.get(origin)
        if idle is None:
            return None
        now = time.monotonic()
        rested, old = now - self._rest_seconds, now - KEEP_SECONDS
        resting = []
        usable = None
        while idle and usable is None:
            connection, since = idle.pop()
            if since > rested:
                resting.append((connection, since))
            elif since > old and connection.usable:
                usable = connection
            else:
                connection.close()
        idle.extend(reversed(resting))
        if not idle:
            self._idle.pop(origin, None)
        return usable

    def _tidy_later(self) -> None:
        """Start the one timer that closes connections idle for KEEP_SECONDS, even where no more requests come."""
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(KEEP_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        for origin, idle in list(self._idle.items()):
            _close_old(idle)
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._tidy_later()

    def _forget(self, connection: UpstreamConnection) -> None:
        self._in_use.pop(connection, None)
        connection.close()

    async def _connect(self, origin: Origin, patience: float | None) -> UpstreamConnection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        try:
            context = (
                self._context() if scheme == "https" else None
            )  # the first one reads files, for which descriptors may lack
            async with asyncio.timeout(patience):
                sock = await self._dialler.dial(host, port)
                try:
                    _, protocol = await loop.create_connection(
                        lambda: UpstreamConnection(self._read_bytes, self._flow_bytes, self._limit_bytes),
                        sock=sock,
                        ssl=context,
                        server_hostname=host if context else None,
                    )
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError as error:
            raise UpstreamTimeoutError(f"no connection to the upstream within {patience:g} s") from error
        except (OSError, ssl.SSLError) as error:
            cannot_be_reached(host, port, error, tls=isinstance(error, ssl.SSLError))
            raise UpstreamUnreachableError("the upstream cannot be reached") from error
        return protocol

    def _context(self) -> ssl.SSLContext:
        if self.tls is None:
            self.tls = create_ssl_context()
        return self.tls


def _close_old(idle: deque[tuple[UpstreamConnection, float]]) -> None:
    """Close the connections that were idle for KEEP_SECONDS, or were closed by the upstream; the oldest come first."""
    oldest = time.monotonic() - KEEP_SECONDS
    while idle and (idle[0][1] <= oldest or not idle[0][0].usable):
        idle.popleft()[0].close()
