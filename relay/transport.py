"""The transport under the openai client: the bytes of a body as they come, read and closed by whoever streams them.

The client still owns the request, the retries and the errors. What the relay's own transports add is why they exist:

- a body is an object with `read` and `close`, not nested async generators, so that it is closed where and when the stream
  says, without an await, also in the middle of a cancellation;
- a refused or broken connection is a connection error, and a silent one a time-out;
- what an upstream connection may hold is bounded, in the kernel and above it.

There are two: `wire`, which is what a stream goes through, and `proxied`, for an upstream that is reached through a proxy.
"""

from __future__ import annotations

import abc
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx2

from .budget import StreamBudget

__all__ = ["BODY", "Body", "transport_to"]

# Under this name a response's extensions hold its Body.
BODY: Final = "relay.body"


class Body(httpx2.AsyncByteStream, abc.ABC):
    """A response's body. Closing it twice does nothing."""

    @abc.abstractmethod
    async def read(self) -> bytes:
        """What has arrived, b"" at the end. Raises httpx2.ReadTimeout (silent for too long), ReadError (broken off)."""

    def flow(self, took: Callable[[bytes], None], ended: Callable[[httpx2.HTTPError | None], None]) -> bool:
        """Hand over what comes, as it comes, instead of being read; False where this body can only be read.

        `took` gets each piece, `ended` None at the end or what went wrong, once; neither may raise.
        """
        return False

    def keep(self) -> None:
        """Flow no more: what comes waits to be read."""

    def pause(self) -> None:
        """Let a body that flows stand still; one that is only read does so by itself."""

    def resume(self) -> None: ...

    @property
    @abc.abstractmethod
    def parsed_bytes(self) -> int:
        """What has come and was not read yet, without what the kernel holds."""

    @abc.abstractmethod
    def untimed(self) -> None:
        """Start no more timers for silence: from here on a sweep looks after it."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close now. A connection whose body was read to its end is kept for the next request."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        self.close()


def transport_to(scheme: str, host: str, *, max_connections: int, budget: StreamBudget) -> httpx2.AsyncBaseTransport:
    """The transport for one upstream. To be made and closed inside of a running loop."""
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        from .proxied import ProxiedTransport

        return ProxiedTransport(max_connections=max_connections, budget=budget)
    from .wire.transport import WireTransport

    return WireTransport(max_connections=max_connections, budget=budget)
