"""A relay with backpressure, open to everybody."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


app = service(relay)
