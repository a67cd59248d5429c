"""SSE by aiohttp.web: `python aiohttp_app.py PORT`, or `gunicorn aiohttp_app:app -k aiohttp.GunicornWebWorker`."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


async def send(request: web.Request, chunk: bytes, pause: float) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(chunk)
        await asyncio.sleep(pause)


async def stream(request: web.Request) -> web.StreamResponse:
    return await send(request, b"data: tick\n\n", 0.05)


async def flood(request: web.Request) -> web.StreamResponse:
    return await send(request, b"data: " + b"x" * 100_000 + b"\n\n", 0)


async def slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(600)
    return web.Response(text="late")


async def returned(request: web.Request) -> web.Response:
    """A response whose body aiohttp itself writes after the handler has returned."""

    async def body():  # type: ignore[no-untyped-def]
        while True:
            yield b"data: tick\n\n"
            await asyncio.sleep(0.05)

    return web.Response(body=body(), content_type="text/event-stream")


async def talk(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for _message in socket:
        pass
    return socket


app = web.Application()
app.add_routes(
    [
        web.get("/stream/{user}", stream),
        web.get("/flood", flood),
        web.get("/slow", slow),
        web.get("/returned", returned),
        web.get("/socket", talk),
    ]
)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
