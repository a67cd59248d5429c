"""/debug/memory for browsers: the page, its script and style, and the event stream that keeps it up to date.

| route | |
|---|---|
| GET /debug/memory | the page where Accept has HTML, else the overview as JSON |
| GET /debug/memory/events | the overview as Server-Sent Events, one a second |
| GET /debug/memory/assets/{name} | page.js, page.css |
| GET /debug/memory/estimates | what a capture of each kind would cost now, with its defaults |
"""

from __future__ import annotations

import asyncio
import json
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ....errors import BusyError, NotFoundError
from ...captures.cost.quote import quotes
from ...captures.kinds import KINDS
from ...workers.targets import Targets
from ..leaving import until_left
from ..overview import Overview

__all__ = ["Events", "page", "routes", "wants_html"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it a browser posts the login form with the Origin "null", which is refused.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ASSETS = {"page.js": "text/javascript", "page.css": "text/css"}
_SECONDS = 1.0
# Each open page has one event stream; more pages than this are a mistake, or an attack.
_MAX_WATCHERS = 32


def wants_html(accept: str) -> bool:
    """Whether an Accept header is a browser's: it has text/html, which no script sends by default."""
    return "text/html" in accept


@cache
def _asset(name: str) -> str:
    return resources.files("diagnostics.monitor.web.pages").joinpath(name).read_text(encoding="utf-8")


def page(name: str = "page.html", status: int = 200) -> Response:
    """An HTML file of pages/, with a Content-Security-Policy that allows its own script only."""
    return Response(_asset(name), status, HEADERS, "text/html")


class Events:
    """The open event streams; `close` ends them all, so that the monitor can end."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        self.ending = asyncio.Event()
        self.watchers = 0

    def close(self) -> None:
        self.ending.set()

    async def show(self, request: Request) -> Response:
        if self.watchers >= _MAX_WATCHERS:
            raise BusyError(f"{self.watchers} pages are open already", remedy="close one of them")
        return _EventStream(self, _address(request))


class _EventStream(Response):
    """One event stream. It waits for the disconnect itself: a generator's clean-up would wait for the garbage collector."""

    media_type = "text/event-stream"

    def __init__(self, events: Events, url: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._url = url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        events = self._events
        events.watchers += 1
        ends = {asyncio.create_task(until_left(receive)), asyncio.create_task(events.ending.wait())}
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while not any(end.done() for end in ends):
                overview = json.dumps(await events.overview.read(self._url), separators=(",", ":"))
                await send({"type": "http.response.body", "body": f"data: {overview}\n\n".encode(), "more_body": True})
                await asyncio.wait(ends, timeout=_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            events.watchers -= 1
            for end in ends:
                end.cancel()
            await asyncio.wait(ends)


def routes(targets: Targets, overview: Overview, events: Events) -> list[Route]:
    async def memory(request: Request) -> Response:
        vary = {"Vary": "Accept"}
        if wants_html(request.headers.get("accept", "")):
            shown = page()
            shown.headers.update(vary)
            return shown
        name = request.query_params.get("worker")
        if name is None:
            snapshots = await targets.snapshots()
        else:
            snapshot = await targets.worker(name).snapshot()
            snapshots = [snapshot] if snapshot else []
        return JSONResponse(await overview.of(snapshots, _address(request)), headers=vary)

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise NotFoundError(f"no asset {name!r}", remedy=f"known: {', '.join(_ASSETS)}")
        return Response(_asset(name), headers=HEADERS, media_type=_ASSETS[name])

    async def estimates(request: Request) -> Response:
        worker = targets.worker(request.query_params.get("worker"))
        methods = [kind.method(kind.checked({})) for kind in KINDS.values()]
        quoted = {
            name: {**quote.to_json(), "refusal": quote.refusal}
            for name, quote in zip(KINDS, await quotes(worker, methods), strict=True)
        }
        return JSONResponse({"worker": worker.name, "estimates": quoted})

    return [
        Route("/debug/memory", memory),
        Route("/debug/memory/events", events.show),
        Route("/debug/memory/estimates", estimates),
        Route("/debug/memory/assets/{name}", asset),
    ]


def _address(request: Request) -> str:
    return str(request.base_url).rstrip("/")
