"""A relay with a periodic job beside its streams: memory rises and falls, independently of the streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

EVERY_SECONDS = 0.7
FOR_SECONDS = 0.2
JOB_BYTES = 1024 * 1024


async def job() -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS - FOR_SECONDS)
        sums = bytearray(JOB_BYTES)
        await asyncio.sleep(FOR_SECONDS)
        del sums


@asynccontextmanager
async def jobs(_: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(job())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


app = service(relay, jobs)
