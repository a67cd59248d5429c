"""Sanic: `respond` and `send`, as its guide shows a stream."""

import asyncio

from sanic import Sanic
from sanic.response import text

app = Sanic("field")


@app.get("/")
async def index(request):
    return text("ready\n")


@app.get("/events/<count:int>")
async def events(request, count):
    response = await request.respond(content_type="text/event-stream")
    for number in range(count):
        await response.send(f"data: {number}\n\n")
        await asyncio.sleep(0.05)
    await response.eof()
