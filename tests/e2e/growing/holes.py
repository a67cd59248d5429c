"""A stream that first makes an answer of 20 MB in blocks just below malloc's own threshold, as plain ASGI.

Of every answer a few small blocks stay, the last ones near the end of the heap: malloc can give back nothing below them, unless
each block of the answer had a mapping of its own. All of them stay: those of a later answer may find a place further down.
"""

from __future__ import annotations

import asyncio
from typing import Any

BLOCK = 100_000
BLOCKS = 200
kept: list[bytearray] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await receive()
    answer()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(3):
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def answer() -> None:
    blocks = []
    for number in range(BLOCKS):
        blocks.append(bytearray(BLOCK))
        if number % 20 == 0:
            kept.append(bytearray(2_000))
