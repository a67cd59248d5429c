"""The transport under the openai client: the bytes of a body as they come, read and closed by whoever streams them.

The client still owns the request, the retries and the errors. What the relay's own transports add is why they exist:

- a body is an object with `read` and `close`, not nested async generators, so that it is closed where and when the stream
  says, without an await, also in the middle of a cancellation;
- a refused or broken connection is a connection error, and a silent one a time-out;
- what an upstream connection may hold is bounded, in the kernel and above it.

There are two: `wire`, which is what a stream goes through, and `proxied`, for an upstream that is reached through a proxy.
"""

from __future__ import annotations

import urllib.request

import httpx2

from ..memory.budget import StreamBudget

__all__ = ["transport_to"]


def transport_to(scheme: str, host: str, *, max_connections: int, budget: StreamBudget) -> httpx2.AsyncBaseTransport:
    """The transport for one upstream. To be made and closed inside of a running loop."""
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        from .proxied import ProxiedTransport

        return ProxiedTransport(max_connections=max_connections, budget=budget)
    from .wire.transport import WireTransport

    return WireTransport(max_connections=max_connections, budget=budget)
