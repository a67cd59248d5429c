"""The same relay, with buffers that go back to a pool when their chunk is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

LARGEST_CHUNK = 256 * 1024
MOST_KEPT = 16

pool: list[bytearray] = []


@contextmanager
def segment() -> Generator[bytearray, None, None]:
    """A buffer from the pool, or a new one; the pool keeps a few of those that come back."""
    buffer = pool.pop() if pool else bytearray(LARGEST_CHUNK)
    try:
        yield buffer
    finally:
        if len(pool) < MOST_KEPT:
            pool.append(buffer)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[memoryview, None]:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            with segment() as buffer:
                size = frame(chunk, buffer)
                yield memoryview(buffer)[:size]


def frame(chunk: bytes, buffer: bytearray) -> int:
    """Put the chunk into the buffer, and return how much of it is filled."""
    if len(chunk) > len(buffer):
        raise ValueError(f"a chunk of {len(chunk)} bytes is larger than the largest, {len(buffer)}")
    buffer[: len(chunk)] = chunk
    return len(chunk)


app = service(relay)
