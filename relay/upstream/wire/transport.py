"""The transport over `wire`: sends a request on a connection of the pool, and returns its response with its body."""

from __future__ import annotations

import asyncio

from ...errors import UpstreamTimeoutError
from ...memory.budget import StreamBudget
from ..body import Body, OnEnd, OnPiece, Response
from ..options import Timeouts
from ..transport import Form, Headers, lines_of
from .connection import UpstreamConnection
from .pool import Pool

__all__ = ["WireTransport"]


class WireTransport:
    """HTTP/1.1 requests over one bounded pool; a `Transport`."""

    def __init__(self, *, max_connections: int, budget: StreamBudget) -> None:
        self._pool = Pool(
            max_connections=max_connections,
            receive_buffer_bytes=budget.receive_buffer_bytes,
            read_bytes=budget.read_recv_bytes,
            flow_bytes=budget.flow_recv_bytes,
            limit_bytes=budget.parser_limit_bytes,
        )

    async def request(self, form: Form, more: Headers, content: bytes, timeouts: Timeouts) -> Response:
        """See `Transport`."""
        head = b"%bcontent-length: %d\r\n%b\r\n" % (form.lines, len(content), lines_of(more))
        connection, answer = await self._pool.request(form.target.origin, head, content, timeouts)
        by_name = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
        return Response(answer.status, by_name, _WireBody(self._pool, connection, timeouts.silence))

    async def close(self) -> None:
        await self._pool.close()


class _WireBody(Body):
    """The body of a response, read from its connection, which goes back to the pool when the body is closed."""

    __slots__ = ("_closed", "_connection", "_patience", "_pool")

    def __init__(self, pool: Pool, connection: UpstreamConnection, patience: float | None) -> None:
        self._pool = pool
        self._connection = connection
        self._patience = patience
        self._closed = False

    async def read(self) -> bytes:
        if self._patience is None or self._connection.readable:
            return await self._connection.read()
        try:
            async with asyncio.timeout(self._patience):
                return await self._connection.read()
        except TimeoutError as error:
            raise UpstreamTimeoutError("the upstream fell silent") from error

    def flow(self, on_piece: OnPiece, on_end: OnEnd) -> bool:
        self._connection.flow(on_piece, on_end)
        return True

    def keep(self) -> None:
        self._connection.keep()

    def pause(self) -> None:
        self._connection.pause()

    def resume(self) -> None:
        self._connection.resume()

    @property
    def parsed_bytes(self) -> int:
        return self._connection.waiting_bytes

    @property
    def at_end(self) -> bool:
        return self._connection.at_end

    def untimed(self) -> None:
        self._patience = None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.release(self._connection)
