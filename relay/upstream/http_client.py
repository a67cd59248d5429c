"""The HTTP client under the openai client, without what the relay does not use of it.

Each request that httpx2's own client builds is merged with the client's URL, headers, parameters and cookies, and each that it
sends goes through authentication, redirects and hooks. The openai client has put into a request whatever belongs there, and
whoever answers hardly ever sends it elsewhere: it goes to the transport as it is, which makes a stream's opening cheaper. And
no cookie that an upstream sets for one caller goes back with another caller's request.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import httpx2

__all__ = ["StraightClient"]

# The openai client may ask for more; then httpx2's own way is taken.
_ENOUGH: Final = frozenset({"content", "headers", "timeout"})

# An upstream has one URL for each endpoint.
_parsed = lru_cache(maxsize=64)(httpx2.URL)


class StraightClient(httpx2.AsyncClient):
    """Requests of the openai client, sent on `transport`; redirects are followed."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, follow_redirects=True, trust_env=False)
        self._straight = transport

    def build_request(self, method: str, url: httpx2.URL | str, **asked: Any) -> httpx2.Request:
        if any(value is not None for name, value in asked.items() if name not in _ENOUGH):
            return super().build_request(method, url, **asked)
        timeout = httpx2.Timeout(asked["timeout"])
        return httpx2.Request(
            method,
            _parsed(str(url)),
            headers=asked["headers"],
            content=asked.get("content"),
            extensions={"timeout": timeout.as_dict()},
        )

    async def send(self, request: httpx2.Request, *, stream: bool = False, **how: Any) -> httpx2.Response:
        """As httpx2's. A response that redirects is asked for again, and httpx2 follows it from there."""
        if stream:
            response = await self._straight.handle_async_request(request)
            if response.status_code < 300 or not response.has_redirect_location:
                return response
            await response.aclose()
        return await super().send(request, stream=stream, **how)
