"""The same relay with a bound: the reader waits for room, and so does the upstream."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Request

from diagnostics.proof.scenarios.response import EventStream

UPSTREAM = os.environ["UPSTREAM_BASE_URL"] + "/chat/completions"
JSON = {"content-type": "application/json"}

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), raise_for_status=True) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> EventStream:
    return EventStream(relay(app.state.session, await request.body()))


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
        async with session.post(UPSTREAM, data=body, headers=JSON) as response:
            async for chunk in response.content.iter_chunked(1024):
                await queue.put(chunk)
    except aiohttp.ClientError as error:
        # The client has had its status line long ago: all that is left is to end its stream.
        logger.warning("the upstream failed: %r", error)
    await queue.put(None)
