"""Several upstreams with fallback: a request goes to the first one whose circuit breaker lets it pass, then to the next.

Only failures before the first byte of an answer count, and only outages (see errors.py): an upstream that refuses a request,
with 400 or 429, works. A stream whose first byte has come is never sent to the next upstream: the client would get halves of
two answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from ..errors import UpstreamError, UpstreamUnavailableError
from .body import Response
from .breaker import Breaker, State
from .upstream import Answer, Upstream

__all__ = ["Upstreams"]

Result = TypeVar("Result")
# Called with a span event and its attributes (telemetry/names.py) when an upstream is skipped, fails, or is a fallback.
Tell = Callable[..., None]


class Upstreams:
    """The methods of one Upstream, over several. `threshold` and `open_seconds` are those of their circuit breakers."""

    def __init__(self, upstreams: Sequence[Upstream], *, threshold: int, open_seconds: float) -> None:
        self._pairs = [(upstream, Breaker(threshold, open_seconds)) for upstream in upstreams]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the upstream that a request goes to first."""
        first = next((up for up, breaker in self._pairs if breaker.state == "closed"), self._pairs[0][0])
        return first.host, first.port

    @property
    def states(self) -> list[State]:
        return [breaker.state for _, breaker in self._pairs]

    async def stream(self, path: str, content: bytes, headers: Mapping[str, str], tell: Tell) -> Response:
        """Post a request that streams. Raises UpstreamError."""
        return await self._first(lambda upstream: upstream.stream(path, content, headers), tell)

    async def answer(self, path: str, content: bytes, headers: Mapping[str, str], tell: Tell) -> Answer:
        """Post a request that does not stream. Raises UpstreamError."""
        return await self._first(lambda upstream: upstream.answer(path, content, headers), tell)

    async def models(self) -> Answer:
        """The list of models. Raises UpstreamError."""
        return await self._first(lambda upstream: upstream.models(), lambda *_, **__: None)

    async def close(self) -> None:
        await asyncio.gather(*(upstream.close() for upstream, _ in self._pairs))

    async def _first(self, ask: Callable[[Upstream], Awaitable[Result]], tell: Tell) -> Result:
        outage: UpstreamError | None = None
        try:
            for number, (upstream, breaker) in enumerate(self._pairs):
                place = {"server_address": upstream.host, "server_port": upstream.port}
                if not breaker.allow(time.monotonic()):
                    tell("upstream_skipped", **place)
                    continue
                if number:
                    tell("fallback", **place)
                try:
                    result = await ask(upstream)
                except UpstreamError as error:
                    if not error.outage:
                        breaker.succeeded()
                        raise
                    breaker.failed(time.monotonic())
                    tell("upstream_failed", **place, error_type=error.code)
                    if breaker.state == "open":
                        tell("breaker_opened", **place)
                    outage = error
                except BaseException:
                    breaker.abandoned(time.monotonic())
                    raise
                else:
                    breaker.succeeded()
                    return result
            now = time.monotonic()
            raise outage or UpstreamUnavailableError(min(breaker.wait(now) for _, breaker in self._pairs))
        finally:
            # The error's traceback holds this frame, and the frame the error: a reference cycle that would keep the request's
            # body until a garbage collection.
            del outage
