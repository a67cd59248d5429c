"""Many idle WebSockets, each with a task of its own that waits."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute


async def index(request):
    return PlainTextResponse("ready\n")


async def idle(websocket):
    await websocket.accept()
    beat = asyncio.create_task(asyncio.sleep(3600))
    try:
        await websocket.receive_text()
    finally:
        beat.cancel()


app = Starlette(routes=[Route("/", index), Route("/work", index), WebSocketRoute("/idle", idle)])
