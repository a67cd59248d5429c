"""A stream of three events. Each one starts a watcher of its own that ends with the server."""

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def index(request):
    return PlainTextResponse("ready\n")


async def events(request):
    async def three():
        for number in range(3):
            yield {"data": number}

    return EventSourceResponse(three())


app = Starlette(routes=[Route("/", index), Route("/work", events)])
