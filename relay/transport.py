"""The transport under the openai client: aiohttp's connections, and a body that is read as bytes and closed at once.

The client still owns the request, the retries and the errors. What this file adds is the reason it exists:

- a body is an object with `read` and `close`, not four nested async generators, so that it is closed where and when the
  stream says, without an await, also in the middle of a cancellation;
- a refused or broken connection is a connection error and a silent one a time-out; the client's own aiohttp transport
  calls both a time-out;
- the receive buffer of an upstream connection is bounded, in the kernel and above it.
"""

from __future__ import annotations

import io
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import httpx2

from .budget import StreamBudget

__all__ = ["BODY", "Body", "Transport"]

# Under this name a response's extensions hold its Body.
BODY: Final = "relay.body"

# aiohttp writes `bytes` in one go and warns from 1 MiB on; a file is written piece by piece.
WRITE_AT_ONCE_BYTES: Final = 64 * 1024


class Body(httpx2.AsyncByteStream):
    """A response's body. `read` gives what has arrived, b"" at the end; `close` takes the connection down if it must.

    Raises httpx2.ReadTimeout (silent for too long) and httpx2.ReadError (broken off).
    """

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
        """What has come and was not read yet, without what the kernel holds."""
        return self._response.content.total_bytes - self._taken

    def untimed(self) -> None:
        """Start no more timers for silence: from here on a sweep looks after it."""
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = None

    def close(self) -> None:
        """Close now. A connection whose body was read to its end is already back in the pool and stays there."""
        self._response.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        self.close()


class Transport(httpx2.AsyncBaseTransport):
    """Requests over one bounded pool of connections. Must be made and closed inside of a running loop."""

    def __init__(self, *, max_connections: int, budget: StreamBudget, trust_env: bool) -> None:
        def make_socket(address: Any) -> socket.socket:
            family, kind, protocol, _, _ = address
            made = socket.socket(family, kind, protocol)
            # Before connect: the window that the upstream may fill is agreed on there.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, budget.receive_buffer)
            return made

        self._read_bytes = budget.read
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=30, socket_factory=make_socket),
            # Cookies would be carried from one user's request to the next one's.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=budget.parsed,
            trust_env=trust_env,
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
        body = Body(response, self._read_bytes)
        return httpx2.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=body,
            request=request,
            extensions={BODY: body},
        )

    async def aclose(self) -> None:
        await self._session.close()
