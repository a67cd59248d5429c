"""SSE by Litestar, under granian, hypercorn or uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from litestar import Litestar, WebSocket, get, websocket
from litestar.response import Stream


def events(chunk: bytes, pause: float) -> Stream:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield chunk
            await asyncio.sleep(pause)

    return Stream(body(), media_type="text/event-stream")


@get("/stream/{user:str}")
async def stream(user: str) -> Stream:
    return events(b"data: tick\n\n", 0.05)


@get("/flood")
async def flood() -> Stream:
    return events(b"data: " + b"x" * 100_000 + b"\n\n", 0)


@get("/slow")
async def slow() -> str:
    await asyncio.sleep(600)
    return "late"


@websocket("/socket")
async def talk(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.receive_text()


app = Litestar([stream, flood, slow, talk], openapi_config=None)
