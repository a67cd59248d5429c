"""The transport for an upstream behind a proxy: aiohttp's, which knows proxies and their authentication.

It costs a stream twice what `wire` does, and bounds it likewise.
"""

from __future__ import annotations

import io
import socket
from typing import Any, Final

import aiohttp
import httpx2

from ..memory.budget import StreamBudget
from .body import BODY, Body

__all__ = ["ProxiedTransport"]

# aiohttp writes `bytes` in one go and warns from 1 MiB on; a file is written piece by piece.
WRITE_AT_ONCE_BYTES: Final = 64 * 1024


class _ProxiedBody(Body):
    def __init__(self, response: aiohttp.ClientResponse, read_bytes: int) -> None:
        self._response = response
        self._read_bytes = read_bytes  # one read: what one `send` to the client may hold back
        self._taken = 0

    async def read(self) -> bytes:
        try:
            chunk = await self._response.content.read(self._read_bytes)
        except TimeoutError as error:
            raise httpx2.ReadTimeout(str(error) or "the upstream is silent") from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(str(error) or type(error).__name__) from error
        self._taken += len(chunk)
        return chunk

    @property
    def parsed_bytes(self) -> int:
        return self._response.content.total_bytes - self._taken

    def untimed(self) -> None:
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = None

    def close(self) -> None:
        self._response.close()


class ProxiedTransport(httpx2.AsyncBaseTransport):
    """Requests over one bounded pool of connections. Must be made and closed inside of a running loop."""

    def __init__(self, *, max_connections: int, budget: StreamBudget) -> None:
        def make_socket(address: Any) -> socket.socket:
            family, kind, protocol, _, _ = address
            made = socket.socket(family, kind, protocol)
            # Before connect: the window that the upstream may fill is agreed on there.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, budget.receive_buffer_bytes)
            return made

        self._read_bytes = budget.read_bytes
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=30, socket_factory=make_socket),
            # Cookies would be carried from one user's request to the next one's.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # aiohttp stops reading above twice this; what one recv gives comes on top, and that is what the kernel may hold.
            read_bufsize=budget.parser_limit_bytes // 2,
            trust_env=True,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        timeout = request.extensions.get("timeout", {})
        content = await request.aread()
        try:
            response = await self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=(io.BytesIO(content) if len(content) > WRITE_AT_ONCE_BYTES else content) or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=timeout.get("pool"),
                    sock_connect=timeout.get("connect"),
                    sock_read=timeout.get("read"),
                ),
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise httpx2.ConnectTimeout(str(error)) from error
        except TimeoutError as error:
            raise httpx2.ReadTimeout(str(error) or "the upstream is silent") from error
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(str(error) or type(error).__name__) from error
        body = _ProxiedBody(response, self._read_bytes)
        return httpx2.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=body,
            request=request,
            extensions={BODY: body},
        )

    async def aclose(self) -> None:
        await self._session.close()
