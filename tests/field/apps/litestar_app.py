"""Litestar: its own ServerSentEvent response."""

import asyncio
from collections.abc import AsyncGenerator

from litestar import Litestar, MediaType, get
from litestar.response import ServerSentEvent


@get("/", media_type=MediaType.TEXT)
async def index() -> str:
    return "ready\n"


@get("/events/{count:int}", sync_to_thread=False)
def events(count: int) -> ServerSentEvent:
    async def pieces() -> AsyncGenerator[str]:
        for number in range(count):
            yield str(number)
            await asyncio.sleep(0.05)

    return ServerSentEvent(pieces())


app = Litestar([index, events])
