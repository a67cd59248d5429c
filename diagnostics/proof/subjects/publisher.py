"""Publishes events to a relay's topic while it is studied, as the scenario's own hub gets them from its feed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2

from ...errors import TargetError
from ..scenario import Upstream

__all__ = ["publishing"]

_TIMEOUT_SECONDS = 10.0


@asynccontextmanager
async def publishing(url: str, feed: Upstream) -> AsyncGenerator[None, None]:
    """POST events of the feed's size, at its pace, over one connection to `url` until the block ends.

    Raises TargetError at the end of the block where not all were accepted: subscribers without events prove nothing.
    """
    task = asyncio.create_task(_publish(url, feed))
    try:
        yield
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


async def _publish(url: str, feed: Upstream) -> None:
    event = json.dumps({"text": "x" * feed.chunk_bytes})
    loop = asyncio.get_running_loop()
    due = loop.time()
    one = httpx2.Limits(max_connections=1)
    async with httpx2.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False, limits=one) as http:
        while True:
            try:
                response = await http.post(url, content=event, headers={"content-type": "application/json"})
            except httpx2.TransportError as error:
                raise TargetError(f"the relay app did not take an event at {url}: {error!r}") from error
            if response.is_error:
                raise TargetError(
                    f"the relay app answered POST {url} with {response.status_code}: {response.text[:200]}",
                    code="target_answers_errors",
                )
            # Delayed events are not followed by a burst.
            due = max(due + 1 / feed.chunks_per_second, loop.time())
            await asyncio.sleep(due - loop.time())
