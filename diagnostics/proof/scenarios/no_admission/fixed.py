"""The same relay with a limit on open streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from diagnostics.proof.scenarios.service import ask, service

MOST_OPEN = 4


class Admission:
    """Admits at most `most` requests at a time, and answers others with 503 and Retry-After."""

    def __init__(self, inner: ASGIApp, most: int) -> None:
        self._inner = inner
        self._free = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
        elif not self._free:
            full = PlainTextResponse("all streams are taken\n", 503, {"retry-after": "1"})
            await full(scope, receive, send)
        else:
            self._free -= 1
            try:
                await self._inner(scope, receive, send)
            finally:
                self._free += 1


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


app = Admission(service(relay), MOST_OPEN)
