"""A StreamingResponse that closes its body, so that no scenario shows a second defect beside its own.

Starlette leaves the body iterator open when the client disconnects while a chunk is being sent: the generator's `finally` then
runs at the next garbage collection. Each scenario is about one defect, so both apps close the iterator at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["EventStream"]


class EventStream(StreamingResponse):
    """Sends what `body` yields as Server-Sent Events, and closes it on every way out."""

    media_type = "text/event-stream"

    def __init__(self, body: AsyncGenerator[bytes | memoryview, None]) -> None:
        super().__init__(body, headers={"cache-control": "no-store"})
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._body.aclose()
