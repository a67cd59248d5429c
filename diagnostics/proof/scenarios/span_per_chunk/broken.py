"""A relay with a span for each stream and, below it, one for each chunk."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp
from opentelemetry import trace

from diagnostics.proof.scenarios.service import ask, service
from diagnostics.proof.scenarios.span_per_chunk.sampling import provider

tracer = provider().get_tracer(__name__)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    stream = tracer.start_span("stream")
    below = trace.set_span_in_context(stream)
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                span = tracer.start_span("chunk", below, attributes={"stream.chunk_bytes": len(chunk)})
                yield chunk
                span.end()
    finally:
        stream.end()


app = service(relay)
