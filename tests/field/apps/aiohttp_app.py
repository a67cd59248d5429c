"""aiohttp.web, for `python -m aiohttp.web aiohttp_app:make`."""

import asyncio

from aiohttp import web


async def index(request):
    return web.Response(text="ready\n")


async def events(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(int(request.match_info["count"])):
        await response.write(f"data: {number}\n\n".encode())
        await asyncio.sleep(0.05)
    await response.write_eof()
    return response


def make(arguments):
    app = web.Application()
    app.add_routes([web.get("/", index), web.get("/events/{count}", events)])
    return app
