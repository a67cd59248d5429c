"""The routes of the relay.

POST /v1/chat/completions      streaming and not, as the next two
POST /v1/completions
POST /v1/responses
GET  /v1/models
GET  /                         a page that shows a stream in a browser
GET  /stream?prompt=&model=    the same stream for a browser's EventSource, which can only GET
GET  /v1/streams/{id}          the rest of a stream, where streams are kept (RELAY_RESUME), as the next one
GET  /v1/responses/{id}        the same by OpenAI's id and numbers: ?stream=true&starting_after=N
GET  /v1/topics/{topic}        subscribe to a topic, by Server-Sent Events
POST /v1/topics/{topic}        publish an event
POST /v1/signed-urls           a URL for a client that can send no key, where that is allowed (RELAY_URL_SECRETS)
GET  /healthz                  liveness: 200 as long as the process answers
GET  /readyz                   readiness: 503 before the relay takes streams, and while it drains
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from ..protocol.endpoints import ENDPOINTS, Endpoint
from ..settings import Settings
from .direct import Handler, through_framework
from .page import page
from .relay import Relay
from .requests import caller, owner, prompt_call, read_call
from .resume import RESPONSE, STREAM_REST, add_resume, last_event_id
from .signed_urls import SIGNED_URLS, add_signed_urls
from .topics import TOPIC, add_topics

__all__ = ["ROUTES", "add_page", "add_routes"]

STREAM: Final = "/stream"
MODELS: Final = "/v1/models"
PAGE: Final = "/"
ROUTES: Final = (
    *(endpoint.route for endpoint in ENDPOINTS), STREAM, MODELS, STREAM_REST, RESPONSE, TOPIC, SIGNED_URLS, PAGE
)  # fmt: skip


def add_routes(api: FastAPI, relay: Relay) -> dict[str, Handler]:
    """Add all routes but the page. Returns the handlers, by path, that need nothing else of the framework (direct.py)."""
    settings = relay.settings

    handlers = {endpoint.route: _relayed(relay, endpoint) for endpoint in ENDPOINTS}
    for path, handler in handlers.items():
        # A plain Starlette route: FastAPI would look for dependencies and models, of which there are none, on each request.
        api.add_route(path, through_framework(handler), methods=["POST"])

    @api.get(STREAM)
    async def stream(
        request: Request,
        prompt: Annotated[str, Query(min_length=1)],
        model: Annotated[str | None, Query(min_length=1)] = None,
    ) -> Response:
        await relay.gate.admit(caller(request))
        position = last_event_id(request) if relay.resuming is not None else None
        if position is not None:
            return await relay.resumed(position, STREAM, request)
        call = prompt_call(prompt, model or settings.default_model)
        # `early`: EventSource shows its page no status anyway, so an error after a heartbeat loses none.
        return await relay.stream(call, STREAM, request, event_source=True, early=True)

    def admit(request: Request) -> Awaitable[None]:
        return relay.gate.admit(caller(request))

    if relay.resuming is not None:
        add_resume(api, relay.resuming, admit, relay.resumed, owner)

    add_topics(api, settings, admit, relay.subscription, relay.serving_hub, relay.bodies)

    if relay.signing is not None:
        add_signed_urls(api, relay.signing, settings.url_seconds, admit, relay.bodies)

    @api.get(MODELS)
    async def models(request: Request) -> Response:
        return await relay.answers.unless_left(request, relay.models(MODELS, request))

    @api.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @api.get("/readyz")
    async def readyz() -> Response:
        if relay.upstream is not None and relay.ready:
            # What is away is told and does not make the relay unready: it is away for all relays, which then serve what they
            # can without it, and an answer of 503 from all of them would end the rest of the service, too.
            states = {"status": "ready", "upstreams": relay.upstream.states, "hub": relay.hub.state}
            more = {"resume": relay.resuming, "limits": relay.gate.shared}
            return JSONResponse({**states, **{name: part.state for name, part in more.items() if part is not None}})
        return JSONResponse({"status": "draining" if relay.drain.begun else "starting"}, status_code=503)

    return handlers


def add_page(api: FastAPI, settings: Settings, monitor_url: str | None) -> None:
    """Add the page at GET /. `monitor_url` is the monitor's address without a path; None where there is none."""
    make = page(model=settings.default_model, monitor_url=monitor_url)

    @api.get(PAGE)
    async def index() -> Response:
        return make()


def _relayed(relay: Relay, endpoint: Endpoint) -> Handler:
    settings = relay.settings

    async def relayed(request: Request) -> Response:
        await relay.gate.admit(caller(request))
        position = last_event_id(request) if relay.resuming is not None else None
        if position is not None:
            await relay.bodies.read(request, settings.max_request_bytes)  # the request again, which is not needed
            return await relay.resumed(position, endpoint.route, request)
        call = read_call(endpoint, await relay.bodies.read(request, settings.max_request_bytes))
        if call.streams:
            return await relay.stream(call, endpoint.route, request)
        return await relay.answers.unless_left(request, relay.answer(call, endpoint.route, request))

    return relayed
