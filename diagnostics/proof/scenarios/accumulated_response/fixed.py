"""The same relay, which logs how long each answer was."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

logger = logging.getLogger(__name__)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    answered = 0
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                answered += len(chunk)
                yield chunk
    finally:
        logger.info("answered: %d bytes", answered)


app = service(relay)
