"""The relay's application: the one place where its parts are put together.

POST /v1/chat/completions      streaming and not; so are the next two
POST /v1/completions
POST /v1/responses
GET  /v1/models
GET  /                         a page that shows a stream in a browser
GET  /stream?prompt=&model=    the same stream for a browser's EventSource, which can only GET
GET  /v1/topics/{topic}        subscribe to a topic, by Server-Sent Events
POST /v1/topics/{topic}        publish an event
GET  /healthz                  the process answers
GET  /readyz                   it takes new streams: 503 before it serves and while it drains
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware

from diagnostics import MonitorProcess, StreamLedger, instrument

from . import telemetry
from .budget import StreamBudget
from .buffer import SegmentPool
from .degraded import DEGRADED, degraded_answer
from .drain import Drain
from .endpoints import ENDPOINTS, Endpoint
from .error_handlers import add_error_handlers
from .errors import ShuttingDownError, UpstreamError
from .events_out import EventsOut
from .facts import answer_facts
from .hub.choice import hub_of
from .hub.memory import Hub
from .hub.routes import TOPIC, add_topics
from .hub.stream import Subscription, TopicStream
from .keys import Keys
from .limits import Gate
from .log import Rejections
from .memory import memory_share
from .outside import KeepSend, Outside
from .page import page
from .read_ahead import ReadAhead, Source
from .requests import OpenAnswers, caller, prompt_call, read_body, read_call, retry_field
from .settings import Settings
from .stream import Call, Policy, RelayedStream, Span
from .sweep import OpenStreams, sweep
from .upstream import Answer, Upstream
from .upstreams import Upstreams

__all__ = ["Relay", "create_app"]

STREAM = "/stream"
MODELS = "/v1/models"
PAGE = "/"
ROUTES = (*(endpoint.route for endpoint in ENDPOINTS), STREAM, MODELS, TOPIC, PAGE)


@dataclass
class Relay:
    """What the routes share. `app` is what a server serves, `api` the routes in it; `drain`: whether new streams are taken."""

    settings: Settings
    upstream_url: str
    ledger: StreamLedger
    telemetry: telemetry.Telemetry
    gate: Gate
    policy: Policy
    hub: Hub
    events_out: EventsOut | None = None
    open_streams: OpenStreams = field(default_factory=OpenStreams)
    answers: OpenAnswers = field(default_factory=OpenAnswers)
    upstream: Upstreams | None = None
    api: FastAPI | None = None
    app: Any = None

    def __post_init__(self) -> None:
        self.drain = Drain(self.settings.drain_seconds, self.open_streams, self.answers)

    @property
    def ready(self) -> bool:
        return self.upstream is not None and not self.drain.begun

    def serving_upstream(self) -> Upstreams:
        """The upstream. Raises ShuttingDownError where no new request is taken."""
        if self.upstream is None or self.drain.begun:
            raise ShuttingDownError
        return self.upstream

    def span(self, call: Call, headers: Mapping[str, str]) -> Span:
        """A span for one call to the upstream; `headers` are those of the caller's request."""
        return self.telemetry.call_span(call, headers, self.serving_upstream().address)

    def stream(
        self, call: Call, route: str, request: Request, *, opening: bytes = b"", early: bool = False
    ) -> Response:
        return RelayedStream(
            call,
            route=route,
            policy=self.policy,
            upstream=self.serving_upstream(),
            ledger=self.ledger,
            place=self.gate.stream(caller(request)),
            open_streams=self.open_streams,
            start_span=self.span,
            request_headers=request.headers,
            opening=opening,
            early=early,
        )

    def serving_hub(self) -> Hub:
        """The hub. Raises ShuttingDownError where no new request is taken."""
        self.serving_upstream()
        return self.hub

    def subscription(self, asked: Subscription, request: Request) -> Response:
        settings = self.settings
        return TopicStream(
            asked,
            route=TOPIC,
            hub=self.serving_hub(),
            ledger=self.ledger,
            open_streams=self.open_streams,
            place=self.gate.stream(caller(request)),
            limits=settings.limits,
            tell=self.telemetry.stream_ended,
            retry=retry_field(settings.retry_seconds),
            write_bytes=StreamBudget(settings.stream_budget_bytes).read,
        )

    async def answer(self, call: Call, request: Request) -> Response:
        """Relay an answer that does not stream."""
        upstream = self.serving_upstream()
        span = self.span(call, request.headers)
        try:
            answer = await upstream.answer(call.endpoint.upstream_path, call.content, span.headers, span.event)
        except UpstreamError as error:
            span.end(error.outcome, error=error)
            if error.outage and self.settings.degraded_message and call.endpoint.degraded:
                content = degraded_answer(call.model, self.settings.degraded_message)
                return Response(content, headers=DEGRADED, media_type="application/json")
            raise
        except asyncio.CancelledError:
            span.end("shutdown" if self.drain.begun else "client_disconnected")
            raise
        span.end("completed", facts=answer_facts(answer.content) if self.telemetry.enabled else None)
        return _response(answer)


def create_app(settings: Settings, upstream_url: str, *, monitor: bool | MonitorProcess = False) -> Relay:
    """The relay for one upstream (its base URL, ending in /v1). Nothing starts before the app's lifespan does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        relay.upstream = upstream = _upstreams(settings, upstream_url)
        ledger.breakers = lambda: upstream.states
        sweeping = asyncio.create_task(sweep(relay.open_streams, settings.limits), name="relay.sweep")
        try:
            async with relay.hub.serving(), relay.events_out.serving() if relay.events_out else nullcontext():
                yield
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])
            relay.upstream = None
            relay.drain.end_all()
            await upstream.close()
            await relay.telemetry.close()

    api = FastAPI(
        title="Highwater relay",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        # telemetry.py traces; the framework's own would log what failed validation, and that is a prompt.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    ledger = instrument(api, monitor=monitor)
    ledger.budget_bytes = settings.budget_bytes
    telling = telemetry.setup(ROUTES)
    reject = _rejecting(ledger, telling)
    gate = Gate(settings.admission, reject=reject, memory=memory_share(settings.memory_limit_bytes))
    hub = hub_of(settings, reject)
    events_out = EventsOut(hub, settings.stream_events_topic) if settings.stream_events_topic else None
    relay = Relay(settings, upstream_url, ledger, telling, gate, _policy(settings, ledger, events_out), hub, events_out)
    relay.api = api
    relay.app = Outside(telling.wrap(_with_access(ledger.app, settings, reject)), telling.seen)
    _add_routes(api, relay)
    _add_page(api, settings, monitor.url if isinstance(monitor, MonitorProcess) else None)
    add_error_handlers(api)
    return relay


def _rejecting(ledger: StreamLedger, telling: telemetry.Telemetry) -> Callable[[str], None]:
    """Who is told of a request that is not let in: the ledger, the request's span, and now and then the log."""
    rejections = Rejections()

    def reject(reason: str) -> None:
        ledger.reject(reason)
        telling.rejected(reason)
        rejections(reason)

    return reject


def _with_access(app: Any, settings: Settings, reject: Callable[[str], None]) -> Any:
    """What stands before the routes: keys, and before them the answers to other pages' preflights, which carry none."""
    if settings.keys:
        app = Keys(app, settings.keys, reject)
    if settings.origins:
        app = CORSMiddleware(
            KeepSend(app),
            allow_origins=settings.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("retry-after", "x-request-id", *DEGRADED),
        )
    return app


def _upstreams(settings: Settings, first_url: str) -> Upstreams:
    fallbacks = filter(None, settings.fallback_base_urls.split(","))
    return Upstreams(
        [
            Upstream(settings, first_url, settings.upstream_api_key),
            *(Upstream(settings, url, settings.fallback_api_key) for url in fallbacks),
        ],
        threshold=settings.breaker_failures,
        open_seconds=settings.breaker_open_seconds,
    )


def _policy(settings: Settings, ledger: StreamLedger, events_out: EventsOut | None) -> Policy:
    return Policy(
        settings.limits,
        settings.max_event_bytes,
        settings.degraded_message,
        _read_ahead(settings, ledger),
        events_out.ended if events_out else None,
    )


def _read_ahead(settings: Settings, ledger: StreamLedger) -> Callable[[Source], ReadAhead] | None:
    if not settings.read_ahead_bytes:
        return None
    read_bytes = StreamBudget(settings.stream_budget_bytes).read
    pool = SegmentPool(segment_bytes=read_bytes // 2)
    ledger.pool = pool.statistics
    return lambda source: ReadAhead(source, settings.read_ahead_bytes, read_bytes, pool)


def _add_routes(api: FastAPI, relay: Relay) -> None:
    settings = relay.settings

    for endpoint in ENDPOINTS:
        # A plain route: there is no dependency to solve and no model to check, and looking for them costs each stream.
        api.add_route(endpoint.route, _relayed(relay, endpoint), methods=["POST"])

    @api.get(STREAM)
    async def stream(
        request: Request,
        prompt: Annotated[str, Query(min_length=1)],
        model: Annotated[str | None, Query(min_length=1)] = None,
    ) -> Response:
        relay.gate.request(caller(request))
        call = prompt_call(prompt, model or settings.default_model)
        # EventSource shows no status to its page, so that nothing is lost when a heartbeat starts the response.
        return relay.stream(call, STREAM, request, opening=retry_field(settings.retry_seconds), early=True)

    add_topics(
        api, settings, lambda request: relay.gate.request(caller(request)), relay.subscription, relay.serving_hub
    )

    @api.get(MODELS)
    async def models(request: Request) -> Response:
        return _response(await relay.answers.unless_left(request, relay.serving_upstream().models()))

    @api.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @api.get("/readyz")
    async def readyz() -> Response:
        if relay.upstream is not None and relay.ready:
            return JSONResponse({"status": "ready", "upstreams": relay.upstream.states, "hub": relay.hub.state})
        return JSONResponse({"status": "draining" if relay.drain.begun else "starting"}, status_code=503)


def _add_page(api: FastAPI, settings: Settings, monitor_url: str | None) -> None:
    make = page(model=settings.default_model, monitor_url=monitor_url)

    @api.get(PAGE)
    async def index() -> Response:
        return make()


def _relayed(relay: Relay, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    settings = relay.settings

    async def relayed(request: Request) -> Response:
        relay.gate.request(caller(request))
        body = await read_body(request, settings.max_request_bytes, settings.request_body_timeout_seconds)
        call = read_call(endpoint, body)
        if call.streams:
            return relay.stream(call, endpoint.route, request)
        return await relay.answers.unless_left(request, relay.answer(call, request))

    return relayed


def _response(answer: Answer) -> Response:
    return Response(answer.content, answer.status, answer.headers)
