"""The same relay with one span for each stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service
from diagnostics.proof.scenarios.span_per_chunk.sampling import provider

tracer = provider().get_tracer(__name__)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    stream = tracer.start_span("stream")
    chunks = 0
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                chunks += 1
                yield chunk
    finally:
        stream.set_attribute("stream.chunks", chunks)
        stream.end()


app = service(relay)
