"""The relay's transport as the openai client's: what it asks through its public API goes out on the relay's connections.

Its answers are bounded: one that is larger than `max_response_bytes` is given up, whatever asked for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx2

from ..errors import UpstreamError, UpstreamProtocolError, UpstreamTimeoutError
from .body import Body
from .options import Timeouts
from .transport import Target, Transport

__all__ = ["http_client"]

# The transport writes these itself, and keeps its connections whatever is said of them.
_OWN: Final = frozenset({b"host", b"content-length", b"connection"})


def http_client(transport: Transport, max_response_bytes: int) -> httpx2.AsyncClient:
    """A client over the relay's transport. It follows no redirect: an upstream is what is configured and nothing else.

    And it keeps no cookie, or what an upstream set for one caller would be sent with another caller's request.
    """
    return httpx2.AsyncClient(
        transport=_Adapted(transport, max_response_bytes),
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


class _Adapted(httpx2.AsyncBaseTransport):
    def __init__(self, transport: Transport, max_response_bytes: int) -> None:
        self._transport = transport
        self._max_response_bytes = max_response_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        told = request.extensions.get("timeout", {})
        timeouts = Timeouts(pool=told.get("pool"), connect=told.get("connect"), silence=told.get("read"))
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _OWN]
        content = await request.aread()
        try:
            response = await self._transport.request(
                request.method, Target.of(str(request.url)), headers, content, timeouts
            )
        except UpstreamError as error:
            raise _of_httpx(error) from error
        return httpx2.Response(
            response.status,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()],
            stream=_Bounded(response.body, self._max_response_bytes),
            request=request,
        )

    async def aclose(self) -> None:
        await self._transport.close()


class _Bounded(httpx2.AsyncByteStream):
    """A body for httpx2, up to a number of bytes."""

    def __init__(self, body: Body, max_bytes: int) -> None:
        self._body = body
        self._left = self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._body.read():
                self._left -= len(chunk)
                if self._left < 0:
                    raise UpstreamProtocolError(
                        f"the upstream's answer is larger than {self._max_bytes} bytes (RELAY_MAX_RESPONSE_BYTES)"
                    )
                yield chunk
        except UpstreamProtocolError:
            raise  # httpx2 has nothing to say of it, and the client would try again
        except UpstreamError as error:
            raise _of_httpx(error) from error

    async def aclose(self) -> None:
        self._body.close()


def _of_httpx(error: UpstreamError) -> httpx2.TransportError:
    """As httpx2 and the openai client call it: they try again. The relay's own error is the cause."""
    kind = httpx2.ReadTimeout if isinstance(error, UpstreamTimeoutError) else httpx2.ReadError
    return kind(str(error))
