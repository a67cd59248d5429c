"""Quart: an async generator as a response."""

import asyncio

from quart import Quart, Response

app = Quart(__name__)


@app.get("/")
async def index():
    return "ready\n"


@app.get("/events/<int:count>")
async def events(count):
    async def pieces():
        for number in range(count):
            yield f"data: {number}\n\n".encode()
            await asyncio.sleep(0.05)

    response = Response(pieces(), mimetype="text/event-stream")
    response.timeout = None  # a stream may take longer than a response
    return response
