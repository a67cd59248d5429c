"""The body of a request, read within its limits: its size, its time, and what all bodies together may hold.

| what is wrong | answer | limit |
|---|---|---|
| it is too large, announced or not | 413 | RELAY_MAX_REQUEST_BYTES; for an event of a topic RELAY_TOPIC_EVENT_BYTES |
| it is too slow | 408 | RELAY_REQUEST_BODY_TIMEOUT_SECONDS for all of it |
| there is no room for it beside the others | 503 | RELAY_REQUESTS_BYTES (memory/requests.py) |

Each of the three closes the connection: the rest of the body is not read, so nothing else can come over it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request

from ..client.bounds import Reject
from ..client.client import came_whole
from ..errors import BodyTimeoutError, BodyTooLargeError, NoRoomForBodyError
from ..memory.requests import HeldBytes, Holding, RequestBudget

__all__ = ["Bodies"]

# When a body ends that has taken the room is not known; most are there within a second.
RETRY_SECONDS: Final = 1.0


class Bodies:
    """Reads the bodies of one relay's requests.

    seconds   how long one may take to come
    budget    what it is charged to
    reject    is told `request_bytes` where there was no room
    """

    def __init__(self, seconds: float, budget: RequestBudget, reject: Reject) -> None:
        self._seconds = seconds
        self._budget = budget
        self._reject = reject

    async def read(self, request: Request, limit: int) -> HeldBytes:
        """The body, of `limit` bytes at most.

        Raises BodyTooLargeError, BodyTimeoutError, NoRoomForBodyError, and starlette's ClientDisconnect.
        """
        if came_whole(request.scope):  # nearly always: nothing to wait for, and no timer
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
        # Starlette's own stream is a generator, of which the loop keeps account.
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
            # The exception's traceback keeps this frame, in a cycle perhaps, until the collector comes by: without its bytes.
            message, part = {}, b""
            parts.clear()
            holding.release()
            raise
