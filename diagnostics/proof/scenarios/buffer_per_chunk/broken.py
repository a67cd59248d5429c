"""A relay that frames each chunk in a buffer with room for the largest."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

LARGEST_CHUNK = 256 * 1024


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[memoryview, None]:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            buffer = bytearray(LARGEST_CHUNK)
            size = frame(chunk, buffer)
            yield memoryview(buffer)[:size]


def frame(chunk: bytes, buffer: bytearray) -> int:
    """Put the chunk into the buffer, and return how much of it is filled."""
    if len(chunk) > len(buffer):
        raise ValueError(f"a chunk of {len(chunk)} bytes is larger than the largest, {len(buffer)}")
    buffer[: len(chunk)] = chunk
    return len(chunk)


app = service(relay)
