"""The transport for an upstream behind a proxy: aiohttp, which handles proxies and their authentication.

A stream costs twice the CPU that it costs over `wire`, and has the same bounds.
"""

from __future__ import annotations

import io
import socket
from typing import Any, Final

import aiohttp

from ..errors import UpstreamTimeoutError, UpstreamUnreachableError
from ..memory.budget import StreamBudget
from .body import Body, Response
from .options import Timeouts
from .transport import Form, Headers

__all__ = ["ProxiedTransport"]

# aiohttp writes `bytes` in one piece, and warns from 1 MiB on; a file object is written in pieces.
WRITE_AT_ONCE_BYTES: Final = 64 * 1024


class _ProxiedBody(Body):
    def __init__(self, response: aiohttp.ClientResponse, read_bytes: int) -> None:
        self._response = response
        self._read_bytes = read_bytes  # the most that one `read` returns, and so one write to the client
        self._taken = 0

    async def read(self) -> bytes:
        try:
            chunk = await self._response.content.read(self._read_bytes)
        except TimeoutError as error:
            raise UpstreamTimeoutError("the upstream fell silent") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnreachableError("the upstream broke the connection off") from error
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


class ProxiedTransport:
    """Requests over one bounded pool of connections; a `Transport`. Must be made and closed inside of a running loop."""

    def __init__(self, *, max_connections: int, budget: StreamBudget) -> None:
        def make_socket(address: Any) -> socket.socket:
            family, kind, protocol, _, _ = address
            sock = socket.socket(family, kind, protocol)
            # Before connect, which negotiates the TCP window that the upstream may fill.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, budget.receive_buffer_bytes)
            return sock

        self._read_bytes = budget.read_bytes
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=30, socket_factory=make_socket),
            # A cookie jar would carry cookies from one user's request to another's.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # aiohttp stops reading above twice this; one recv may come on top, as large as the kernel's receive buffer.
            read_bufsize=budget.parser_limit_bytes // 2,
            trust_env=True,
        )

    async def request(self, form: Form, more: Headers, content: bytes, timeouts: Timeouts) -> Response:
        """See `Transport`."""
        try:
            response = await self._session.request(
                form.method,
                form.target.url,
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in (*form.headers, *more)],
                data=(io.BytesIO(content) if len(content) > WRITE_AT_ONCE_BYTES else content) or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=timeouts.pool, sock_connect=timeouts.connect, sock_read=timeouts.silence
                ),
            )
        except TimeoutError as error:
            raise UpstreamTimeoutError("the upstream did not answer in time") from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamUnreachableError("the upstream cannot be reached") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnreachableError("the upstream closed the connection without an answer") from error
        by_name = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.raw_headers}
        return Response(response.status, by_name, _ProxiedBody(response, self._read_bytes))

    async def close(self) -> None:
        await self._session.close()
