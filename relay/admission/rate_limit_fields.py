"""Adds the RateLimit header fields (standing.py) to each answer, accepted or refused, but for the page and the probes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from .keys import OPEN
from .standing import Standing, header_fields

if TYPE_CHECKING:
    from ..client.reply import Message, Receive, Scope, Send

__all__ = ["RateLimitFields"]


class RateLimitFields:
    """Pure ASGI middleware. `standing` returns the limits of the caller of a scope, as they are when its answer begins.

    It stands inside of the middleware of keys: who is let in by no key learns nothing of anybody's limits.
    """

    def __init__(self, app: Any, standing: Callable[[Scope], Iterable[Standing]]) -> None:
        self._app = app
        self._standing = standing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, self._with_fields(scope, send))

    def _with_fields(self, scope: Scope, send: Send) -> Send:
        def with_fields(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *header_fields(self._standing(scope))]}
            return send(message)

        return with_fields
