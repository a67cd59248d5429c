"""The same relay with a bound: the reader waits for room, and so does the upstream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

logger = logging.getLogger(__name__)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the upstream's bytes at the client's pace."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)
    reader = asyncio.create_task(read_upstream(session, body, queue))
    try:
        while (chunk := await queue.get()) is not None:
            yield chunk
    finally:
        reader.cancel()
        await asyncio.wait([reader])


async def read_upstream(session: aiohttp.ClientSession, body: bytes, queue: asyncio.Queue[bytes | None]) -> None:
    """Fill the queue no faster than the client empties it; None is the end."""
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_chunked(1024):
                await queue.put(chunk)
    except aiohttp.ClientError as error:
        # The client has had its status line long ago: all that is left is to end its stream.
        logger.warning("the upstream failed: %r", error)
    await queue.put(None)


app = service(relay)
