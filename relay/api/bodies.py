"""Reads the body of a request within limits of size, of time, and of the bytes of all requests together.

| the body | answer | limit |
|---|---|---|
| is too large, announced (Content-Length) or not | 413 | RELAY_MAX_REQUEST_BYTES; for a topic RELAY_TOPIC_EVENT_BYTES |
| is too slow | 408 | RELAY_REQUEST_BODY_TIMEOUT_SECONDS for all of it |
| does not fit beside the other requests | 503 | RELAY_REQUESTS_BYTES (memory/requests.py) |

Each of the three closes the connection: the rest of the body is not read, so the connection cannot carry another request.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from ..client.bounds import Reject
from ..client.client import whole_body_arrived
from ..errors import RETRY_SECONDS, BodyTimeoutError, BodyTooLargeError, NoRoomForBodyError
from ..memory.requests import HeldBytes, Holding, RequestBudget

__all__ = ["Bodies"]


class Bodies:
    """Reads the bodies of one relay's requests.

    seconds   the time-out for one whole body
    budget    to which the bodies are charged
    reject    called with `request_bytes` where there was no room
    """

    def __init__(self, seconds: float, budget: RequestBudget, reject: Reject) -> None:
        self._seconds = seconds
        self._budget = budget
        self._reject = reject

    async def read(self, request: Request, limit: int) -> HeldBytes:
        """Read the body, of `limit` bytes at most.

        Raises BodyTooLargeError, BodyTimeoutError, NoRoomForBodyError, and Starlette's ClientDisconnect.
        """
        if whole_body_arrived(request.scope):  # nearly always: no wait, and so no timer
            return await self._read(request, limit)
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise BodyTooLargeError(limit)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read(request, limit)
        except TimeoutError:
            raise BodyTimeoutError(self._seconds) from None

    async def _read(self, request: Request, limit: int) -> HeldBytes:
        # Not Starlette's request.stream(): an async generator, which costs the loop's hooks for each request.
        holding = Holding(self._budget)
        parts: list[bytes] = []
        more = True
        try:
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                if holding.nbytes + len(part) > limit:
                    raise BodyTooLargeError(limit)
                if not holding.grow(len(part)):
                    self._reject("request_bytes")
                    raise NoRoomForBodyError(RETRY_SECONDS)
                parts.append(part)
                more = message.get("more_body", False)
            return HeldBytes.of(parts, holding)
        except BaseException:
            # The exception's traceback may keep this frame until a garbage collection: drop the body's bytes from it.
            message, part = {}, b""
            parts.clear()
            holding.release()
            raise
