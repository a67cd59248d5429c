"""The interface of the two transports that send requests to an upstream: `wire`, and `proxied` for an upstream behind a proxy.

The relay has transports of its own for the sake of their bounds: the bytes of an upstream's connection are bounded in the
kernel and above it, and its stream can close a body at any moment (body.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from .body import Response
from .options import Timeouts

__all__ = ["Form", "Headers", "Target", "Transport", "lines_of"]

Headers = Sequence[tuple[bytes, bytes]]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a request's URL.

    url      the whole URL
    origin   scheme, host and port
    host     the value of the Host header
    path     the target of the request line, with the query
    """

    url: str
    origin: tuple[str, str, int]
    host: bytes
    path: bytes

    @classmethod
    def of(cls, url: str) -> Target:
        """Split a URL, which must be http or https and have a host."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return cls(url, (parts.scheme, host, port), parts.netloc.rpartition("@")[2].encode(), path.encode())


class Form:
    """What all requests of one kind have in common.

    headers   those that do not differ from request to request
    lines     the request line and the lines of Host and these headers, as HTTP/1.1 has them
    """

    __slots__ = ("headers", "lines", "method", "target")

    def __init__(self, method: str, url: str, headers: Headers) -> None:
        self.method = method
        self.target = Target.of(url)
        self.headers = headers
        self.lines = b"%b %b HTTP/1.1\r\n%b" % (
            method.encode(), self.target.path, lines_of([(b"host", self.target.host), *headers])
        )  # fmt: skip


def lines_of(headers: Headers) -> bytes:
    """The lines of headers, as HTTP/1.1 has them."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Transport(Protocol):
    """Sends requests over a pool of connections."""

    async def request(self, form: Form, more: Headers, content: bytes, timeouts: Timeouts) -> Response:
        """Send a request with `more` headers and its Content-Length; returns when the response's head has come.

        Raises UpstreamTimeoutError, UpstreamUnreachableError, UpstreamProtocolError.
        """

    async def close(self) -> None:
        """Close all connections."""
