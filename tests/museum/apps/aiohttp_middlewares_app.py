"""A service with a middleware that is asked with a method that no route has. The handler that says so is another one each time,
and a cache without a bound keeps them all."""

import sys

from aiohttp import web


@web.middleware
async def plain(request, handler):
    return await handler(request)


async def index(request):
    return web.Response(text="ready\n")


app = web.Application(middlewares=[plain])
app.add_routes([web.get("/", index), web.get("/work", index)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
