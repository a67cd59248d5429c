"""SSE by Sanic's own server."""

from __future__ import annotations

import asyncio

from sanic import HTTPResponse, Request, Sanic, Websocket, text

app = Sanic("streaming")
app.config.RESPONSE_TIMEOUT = 600


async def send(request: Request, chunk: bytes, pause: float) -> None:
    response = await request.respond(content_type="text/event-stream")
    while True:
        await response.send(chunk)
        await asyncio.sleep(pause)


@app.get("/stream/<user:str>")
async def stream(request: Request, user: str) -> None:
    await send(request, b"data: tick\n\n", 0.05)


@app.get("/flood")
async def flood(request: Request) -> None:
    await send(request, b"data: " + b"x" * 100_000 + b"\n\n", 0)


@app.get("/slow")
async def slow(request: Request) -> HTTPResponse:
    await asyncio.sleep(600)
    return text("late")


@app.websocket("/socket")
async def talk(request: Request, ws: Websocket) -> None:
    while True:
        await ws.recv()
