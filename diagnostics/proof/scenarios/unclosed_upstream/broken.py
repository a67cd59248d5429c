"""A relay that knows which upstream responses are open."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

upstreams: set[aiohttp.ClientResponse] = set()


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    response = await ask(session, body)
    upstreams.add(response)
    async for chunk in response.content.iter_any():
        yield chunk
    response.close()
    upstreams.discard(response)


app = service(relay)
