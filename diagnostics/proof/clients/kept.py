"""The connection that a client keeps after a stream, for its next one (RFC 9112, 9.3)."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

__all__ = ["Connection", "Kept"]


@dataclass(frozen=True, slots=True)
class Connection:
    """A connected socket and its transport."""

    sock: socket.socket
    transport: asyncio.Transport


class Kept:
    """One client's connection between two streams; none at first. `close` it at the end."""

    def __init__(self) -> None:
        self._idle: tuple[Connection, _Idle] | None = None

    def keep(self, connection: Connection) -> None:
        """Hold a connection on which an answer has just ended."""
        waiting = _Idle(connection.transport)
        connection.transport.set_protocol(waiting)
        self._idle = connection, waiting

    async def take(self) -> Connection | None:
        """The connection that is held, from now on the caller's; None where there is none, or the service has closed it."""
        if self._idle is None:
            return None
        connection, waiting = self._idle
        if waiting.lost.done() or connection.transport.is_closing():
            await self.close()
            return None
        self._idle = None
        return connection

    async def close(self) -> None:
        """Close the connection, and wait until the loop has let go of its socket."""
        if self._idle is not None:
            (connection, waiting), self._idle = self._idle, None
            connection.transport.abort()
            await waiting.lost
            connection.sock.close()


class _Idle(asyncio.Protocol):
    """Watches a connection on which nothing is asked: what comes now belongs to no answer, and ends it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
