"""SSE by Quart, under hypercorn or uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, websocket

app = Quart(__name__)
app.config["RESPONSE_TIMEOUT"] = None


def events(chunk: bytes, pause: float) -> Any:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield chunk
            await asyncio.sleep(pause)

    return body(), {"Content-Type": "text/event-stream"}


@app.get("/stream/<user>")
async def stream(user: str) -> Any:
    return events(b"data: tick\n\n", 0.05)


@app.get("/flood")
async def flood() -> Any:
    return events(b"data: " + b"x" * 100_000 + b"\n\n", 0)


@app.get("/slow")
async def slow() -> str:
    await asyncio.sleep(600)
    return "late"


@app.websocket("/socket")
async def talk() -> None:
    while True:
        await websocket.receive()
