"""Streams that end by themselves, or flood their clients, as plain ASGI: each setting is one kind of growth.

KEEP    bytes of Python's that each *completed* stream leaves behind; one that is cut off leaves nothing
MAP     bytes that each completed stream maps for itself and keeps, which no allocator knows of
RAISES  each completed stream leaves the exception of a failed lookup, with the frames that it hangs on
EVENTS  events of a stream, 20 ms apart; 0: it never ends
FLOOD   bytes a second that are made for each stream, whether its client reads or not, and put into a queue without a bound
"""

from __future__ import annotations

import asyncio
import mmap
import os
from typing import Any

KEEP = int(os.environ.get("KEEP", "0"))
MAP = int(os.environ.get("MAP", "0"))
RAISES = os.environ.get("RAISES", "") == "1"
EVENTS = int(os.environ.get("EVENTS", "5"))
FLOOD = int(os.environ.get("FLOOD", "0"))
kept: list[Any] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await receive()
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    await send(head)
    gone = asyncio.ensure_future(receive())
    if FLOOD:
        await flood(send, gone)
        return
    sent = 0
    while not gone.done() and (not EVENTS or sent < EVENTS):
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        sent += 1
        await asyncio.sleep(0.02)
    if not gone.done():
        gone.cancel()
        remember()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def remember() -> None:
    if KEEP:
        kept.append(os.urandom(KEEP))
    if MAP:
        kept.append(mmap.mmap(-1, MAP))
        kept[-1].write(b"x" * MAP)
    if RAISES:
        try:
            look_up(os.urandom(12_000))
        except LookupError as error:
            kept.append(error)


def look_up(question: bytes) -> None:
    raise LookupError(len(question))


async def flood(send: Any, gone: asyncio.Future[Any]) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    making = asyncio.ensure_future(make(queue))
    try:
        while not gone.done():
            await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})
    finally:
        making.cancel()


async def make(queue: asyncio.Queue[bytes]) -> None:
    while True:
        queue.put_nowait(b"data: " + os.urandom(FLOOD // 100).hex().encode() + b"\n\n")
        await asyncio.sleep(0.02)
