"""The upstreams in their order: the first that is not known to be down, and the next one when it turns out to be.

Only failures before the first byte of an answer count, and only outages (see errors.py): an upstream that refuses a request,
with 400 or 429, works. What was begun is never begun again elsewhere, for a client would get two halves of two answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from .breaker import Breaker, State
from .errors import UpstreamError, UpstreamUnavailableError
from .upstream import Answer, Upstream, UpstreamStream

__all__ = ["Upstreams"]

Result = TypeVar("Result")


class Upstreams:
    """As one Upstream, for several."""

    def __init__(self, upstreams: Sequence[Upstream], *, threshold: int, open_seconds: float) -> None:
        self._pairs = [(upstream, Breaker(threshold, open_seconds)) for upstream in upstreams]

    @property
    def address(self) -> tuple[str, int]:
        """Of the one that a request would go to first."""
        first = next((up for up, breaker in self._pairs if breaker.state == "closed"), self._pairs[0][0])
        return first.host, first.port

    @property
    def states(self) -> list[State]:
        return [breaker.state for _, breaker in self._pairs]

    async def stream(self, path: str, content: bytes, headers: Mapping[str, str]) -> UpstreamStream:
        """Post a request that streams. Raises UpstreamError."""
        return await self._first(lambda upstream: upstream.stream(path, content, headers))

    async def answer(self, path: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a request that does not stream. Raises UpstreamError."""
        return await self._first(lambda upstream: upstream.answer(path, content, headers))

    async def models(self) -> Answer:
        """The list of models. Raises UpstreamError."""
        return await self._first(lambda upstream: upstream.models())

    async def close(self) -> None:
        await asyncio.gather(*(upstream.close() for upstream, _ in self._pairs))

    async def _first(self, ask: Callable[[Upstream], Awaitable[Result]]) -> Result:
        outage: UpstreamError | None = None
        for upstream, breaker in self._pairs:
            if not breaker.allow(time.monotonic()):
                continue
            try:
                result = await ask(upstream)
            except UpstreamError as error:
                if not error.outage:
                    breaker.succeeded()
                    raise
                breaker.failed(time.monotonic())
                outage = error
            except BaseException:
                breaker.abandoned(time.monotonic())
                raise
            else:
                breaker.succeeded()
                return result
        now = time.monotonic()
        raise outage or UpstreamUnavailableError(min(breaker.wait(now) for _, breaker in self._pairs))
