"""A relay that keeps the last few hundred answers in blocks of every size: freed blocks lie between live ones."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

KEPT = 512
SMALLEST, LARGEST = 64, 32 * 1024
sizes = random.Random(1)  # noqa: S311 -- sizes of blocks

# Full from the start: it is always as large, only its blocks change.
recent = deque((bytearray(sizes.randrange(SMALLEST, LARGEST)) for _ in range(KEPT)), maxlen=KEPT)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            if sizes.random() < 0.2:
                recent.append(bytearray(sizes.randrange(SMALLEST, LARGEST)))
            yield chunk


app = service(relay)
