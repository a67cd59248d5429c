"""A proxy with one session: each request asks the upstream (here: itself) for another path. Looking for its cookies makes an
empty jar for each path and all above it."""

import itertools
import sys

from aiohttp import ClientSession, CookieJar, web

numbers = itertools.count()


async def index(request):
    return web.Response(text="ready\n")


async def proxied(request):
    number = next(numbers)
    path = "/".join(
        f"{part}{number}" for part in ("tenant", "project", "folder", "report", "page", "section", "item", "revision")
    )
    async with request.app["session"].get(f"http://127.0.0.1:{sys.argv[1]}/upstream/{path}") as response:
        return web.Response(body=await response.read())


async def upstream(request):
    answer = web.Response(text="ok\n")
    answer.set_cookie("visited", "yes")
    return answer


async def session(app):
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as app["session"]:
        yield


app = web.Application()
app.cleanup_ctx.append(session)
app.add_routes([web.get("/", index), web.get("/work", proxied), web.get("/upstream/{path:.*}", upstream)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
