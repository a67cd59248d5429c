"""A relay that logs each answer when it is whole."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

logger = logging.getLogger(__name__)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    answer = ""
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                answer += chunk.decode(errors="replace")
                yield chunk
    finally:
        logger.info("answered: %s", answer)


app = service(relay)
