"""How a request reaches an upstream: what both ways have in common.

The relay has transports of its own because of what they hold: an upstream's connection is bounded in the kernel and above it,
and its body is closed where its stream says (body.py). There are two: `wire`, which is what a stream goes through, and
`proxied`, for an upstream that is reached through a proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from .body import Response
from .options import Timeouts

__all__ = ["Headers", "Target", "Transport"]

Headers = Sequence[tuple[bytes, bytes]]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes.

    url      whole
    origin   scheme, host and port
    host     what the Host header says
    path     what the request line says, with the query
    """

    url: str
    origin: tuple[str, str, int]
    host: bytes
    path: bytes

    @classmethod
    def of(cls, url: str) -> Target:
        """Of a URL that is known to be http or https and to have a host."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return cls(url, (parts.scheme, host, port), parts.netloc.rpartition("@")[2].encode(), path.encode())


class Transport(Protocol):
    """Sends requests on connections that it keeps."""

    async def request(
        self, method: str, target: Target, headers: Headers, content: bytes, timeouts: Timeouts
    ) -> Response:
        """Send a request, whose headers lack Host and Content-Length; the response is there when its head is.

        Raises UpstreamTimeoutError, UpstreamUnreachableError, UpstreamProtocolError.
        """

    async def close(self) -> None:
        """Close all connections."""
