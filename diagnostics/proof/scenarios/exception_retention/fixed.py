"""The same relay, which remembers what it would say about a failure."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

# What a status page would show.
failures: deque[str] = deque(maxlen=10_000)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    # The last 32 KiB of the answer, shown with an error.
    window = bytearray(32 * 1024)
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                window[:] = (window + chunk)[-len(window) :]
                yield chunk
    except aiohttp.ClientError as error:
        failures.append(f"{type(error).__name__}: {error}")
        yield b"event: error\ndata: the upstream failed\n\n"


app = service(relay)
