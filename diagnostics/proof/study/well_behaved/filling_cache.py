"""A relay that keeps something of each stream in a cache of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from itertools import count

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

ENTRIES = 96
ENTRY_BYTES = 16 * 1024

cache: OrderedDict[int, bytearray] = OrderedDict()
numbers = count()


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    cache[next(numbers)] = bytearray(ENTRY_BYTES)
    if len(cache) > ENTRIES:
        cache.popitem(last=False)
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


app = service(relay)
