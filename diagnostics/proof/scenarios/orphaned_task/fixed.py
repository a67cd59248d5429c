"""The same relay: the task ends with the stream that it reads for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

running: set[asyncio.Task[None]] = set()


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)
    reader = asyncio.create_task(read_upstream(session, body, queue))
    running.add(reader)
    reader.add_done_callback(running.discard)
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


app = service(relay)
