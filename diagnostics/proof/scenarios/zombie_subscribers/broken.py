"""A hub: one upstream stream, broadcast to all subscribers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

FEED = json.dumps({"model": os.environ["FEED_MODEL"], "stream": True, "messages": []}).encode()

# Each with the number of the last event that was queued for it.
subscribers: dict[asyncio.Queue[bytes], int] = {}


async def subscribe(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=32)
    subscribers[queue] = 0
    while True:
        yield await queue.get()


def publish(event: bytes) -> None:
    for queue, number in subscribers.items():
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(b"id: %d\n%s" % (number + 1, event))
        subscribers[queue] = number + 1


async def broadcast(session: aiohttp.ClientSession) -> None:
    async with ask(session, FEED) as response:
        while True:
            publish(await response.content.readuntil(b"\n\n"))


@asynccontextmanager
async def feed(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(broadcast(session))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


app = service(subscribe, feed)
