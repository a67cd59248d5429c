"""A relay with a heartbeat for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

HEARTBEAT = b": still here\n\n"
HEARTBEAT_SECONDS = 1.0

# asyncio itself keeps no task from the garbage collector.
tickers: set[asyncio.Task[None]] = set()


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)
    reader = asyncio.create_task(read_upstream(session, body, queue))
    ticker = asyncio.create_task(tick(queue))
    tickers.add(ticker)
    ticker.add_done_callback(tickers.discard)
    try:
        while (chunk := await queue.get()) is not None:
            yield chunk
    finally:
        reader.cancel()
        await asyncio.wait([reader])


async def read_upstream(session: aiohttp.ClientSession, body: bytes, queue: asyncio.Queue[bytes | None]) -> None:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_chunked(1024):
            await queue.put(chunk)
    await queue.put(None)


async def tick(queue: asyncio.Queue[bytes | None]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await queue.put(HEARTBEAT)


app = service(relay)
