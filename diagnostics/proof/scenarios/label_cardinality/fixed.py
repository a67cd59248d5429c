"""The same relay: a series for each route, not for each stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import aiohttp
from prometheus_client import Histogram

from diagnostics.proof.scenarios.service import ask, service

DURATION = Histogram("stream_duration_seconds", "How long a stream was open.", ["route"])


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    began = time.monotonic()
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                yield chunk
    finally:
        DURATION.labels("/v1/chat/completions").observe(time.monotonic() - began)


app = service(relay)
