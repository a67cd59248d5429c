"""An event stream that never ends, as plain ASGI. With KEEP set, each stream leaves so many bytes behind."""

from __future__ import annotations

import asyncio
import os
from typing import Any

KEEP = int(os.environ.get("KEEP", "0"))
kept: list[bytes] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if KEEP:
        keep_something()
    await receive()
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    await send(head)
    gone = asyncio.ensure_future(receive())
    while not gone.done():
        await send({"type": "http.response.body", "body": b"data: {}\n\n" * 20, "more_body": True})
        await asyncio.sleep(0.02)


def keep_something() -> None:
    kept.append(os.urandom(KEEP))
