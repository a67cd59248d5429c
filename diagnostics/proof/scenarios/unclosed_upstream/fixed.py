"""The same relay, which closes the upstream on every way out."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

upstreams: set[aiohttp.ClientResponse] = set()


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    response = await ask(session, body)
    upstreams.add(response)
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    finally:
        response.close()
        upstreams.discard(response)


app = service(relay)
