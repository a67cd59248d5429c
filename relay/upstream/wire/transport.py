"""httpx2's side of `wire`: what the openai client asks for, sent on a connection of the pool, and the body handed over."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx2

from ...memory.budget import StreamBudget
from ..body import BODY, Body
from .connection import Connection, Ended, Took
from .pool import Pool, Timeouts

__all__ = ["WireTransport"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class WireTransport(httpx2.AsyncBaseTransport):
    """HTTP/1.1 requests over one bounded pool."""

    def __init__(self, *, max_connections: int, budget: StreamBudget) -> None:
        self._pool = Pool(
            max_connections=max_connections,
            receive_buffer_bytes=budget.receive_buffer_bytes,
            read_bytes=budget.read_recv_bytes,
            flow_bytes=budget.flow_recv_bytes,
            limit_bytes=budget.parser_limit_bytes,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        origin = (url.scheme, url.host, url.port or _DEFAULT_PORTS[url.scheme])
        told = request.extensions.get("timeout", {})
        timeouts = Timeouts(pool=told.get("pool"), connect=told.get("connect"), head=told.get("read"))
        stream = request.stream
        content = b"".join(stream) if isinstance(stream, httpx2.ByteStream) else await request.aread()
        connection, head = await self._pool.request(
            origin, request.method, url.raw_path, request.headers.raw, content, timeouts
        )
        body = _WireBody(self._pool, connection, timeouts.head)
        response = httpx2.Response(
            head.status, headers=head.headers, stream=body, request=request, extensions={BODY: body}
        )
        response.headers.encoding = "latin-1"  # it has a character for every byte, and need not be guessed
        return response

    async def aclose(self) -> None:
        await self._pool.close()


class _WireBody(Body):
    """A body on its connection, which goes back to the pool when the body is closed."""

    __slots__ = ("_closed", "_connection", "_patience", "_pool")

    def __init__(self, pool: Pool, connection: Connection, patience: float | None) -> None:
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
            raise httpx2.ReadTimeout("the upstream is silent") from error

    def flow(self, took: Took, ended: Ended) -> bool:
        self._connection.flow(took, ended)
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

    def untimed(self) -> None:
        self._patience = None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.release(self._connection)
