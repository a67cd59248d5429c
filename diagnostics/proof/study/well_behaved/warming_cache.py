"""A relay that caches by prompt, of which there is a limited number: every stream may add an entry, ever fewer do."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

PROMPTS = 256
ENTRY_BYTES = 8 * 1024

cache: dict[int, bytearray] = {}


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    prompt = random.randrange(PROMPTS)  # noqa: S311 -- which prompt comes is no secret
    if prompt not in cache:
        cache[prompt] = bytearray(ENTRY_BYTES)
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


app = service(relay)
