"""Puts the relay together: the only place where its parts are made and given to each other. Its routes are in api/routes.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from diagnostics import MonitorProcess, StreamLedger, instrument

from . import telemetry
from .admission.backends import shared_of
from .admission.gate import Gate
from .admission.keys import Keys
from .admission.pages import Pages
from .admission.rate_limit_fields import RateLimitFields
from .admission.rejection_log import Rejections
from .admission.sharing import Shared
from .admission.signed import Signing
from .admission.standing import POLICY_FIELD, STANDING_FIELD
from .api.direct import Direct
from .api.error_handlers import add_error_handlers
from .api.relay import Relay
from .api.requests import caller_of
from .api.routes import ROUTES, add_page, add_routes
from .client.bounds import Reject
from .client.outside import KeepSend, Outside
from .events.destinations import kafka_of
from .hub.backends import hub_of
from .hub.events_out import EventsOut
from .memory.buffer import SegmentPool
from .memory.limit import memory_share
from .memory.requests import RequestBudget
from .resume.backends import store_of
from .resume.reply import STREAM_HEADER
from .resume.store import Store
from .settings import Settings
from .stream.call import Span, StreamOptions
from .stream.degraded import DEGRADED
from .stream.ending import Ending
from .stream.read_ahead import ReadAhead
from .stream.sweep import sweep
from .upstream.body import Body
from .upstream.upstream import Upstream
from .upstream.upstreams import Upstreams

if TYPE_CHECKING:
    from .events.kafka import KafkaOut  # at run time an extra that most relays do not install

__all__ = ["create_app"]


def create_app(settings: Settings, upstream_url: str, *, monitor: bool | MonitorProcess = False) -> Relay:
    """The relay for one upstream and its fallbacks. Starts nothing: that is for the lifespan of the returned `Relay.app`.

    upstream_url   the upstream's base URL, ending in /v1
    monitor        as in diagnostics.instrument: the monitor to report to; False for none
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        relay.upstream = upstream = _upstreams(settings, upstream_url)
        ledger.breakers = lambda: upstream.states
        sweeping = asyncio.create_task(sweep(relay.open_streams, settings.limits), name="relay.sweep")
        try:
            async with (
                relay.hub.serving(), _serving(shared), _serving(events_out), _serving(kafka_out),
                nullcontext() if store is None else store.serving(lambda: relay.drain.seconds_left),
            ):  # fmt: skip
                yield
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])
            relay.upstream = None
            relay.drain.end_all()
            await upstream.close()
            await relay.telemetry.close()

    api = _framework(lifespan)
    ledger = instrument(api, monitor=monitor)
    ledger.budget_bytes = settings.budget_bytes
    telling = telemetry.setup(ROUTES)
    reject = _rejecting(ledger, telling)
    store = store_of(settings.resuming) if settings.resuming else None
    kept = _kept(store) if store else None
    ledger.kept = kept
    shared = shared_of(settings.sharing)
    if shared is not None:
        ledger.shared_limits = shared.statistics
    gate = Gate(
        settings.admission, reject=reject, memory=memory_share(settings.memory_limit_bytes), kept=kept, shared=shared
    )
    hub = hub_of(settings.topics, settings.redis, reject)
    events_out = EventsOut(hub, settings.stream_events_topic) if settings.stream_events_topic else None
    kafka_out = kafka_of(settings.kafka)
    told = {name: each for name, each in (("topic", events_out), ("kafka", kafka_out)) if each is not None}
    if told:
        ledger.outbox = lambda: {name: each.statistics() for name, each in told.items()}
    signing = settings.signing
    request_budget = RequestBudget(settings.requests_bytes)
    ledger.requests = lambda: {"heads": request_budget.heads, "bodies": request_budget.bodies}
    relay = Relay(
        settings,
        upstream_url,
        ledger,
        telling,
        gate,
        _stream_options(settings, ledger, _telling(events_out, kafka_out)),
        hub,
        reject,
        request_budget,
        store,
        signing,
    )
    relay.api = api
    handlers = add_routes(api, relay)
    relay.app = Outside(
        telling.wrap(
            _with_access(_with_fields(Direct(ledger.app, handlers), settings, gate), settings, signing, reject)
        ),
        telling.seen,
        settings.stream_budget.write_high_water_bytes,
    )
    add_page(api, settings, monitor.url if isinstance(monitor, MonitorProcess) else None)
    add_error_handlers(api)
    return relay


def _framework(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """The FastAPI app without a route."""
    return FastAPI(
        title="Highwater relay",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        # telemetry/ traces; FastAPI's own telemetry would log values that fail validation, which may be prompts.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )


def _kept(store: Store) -> Callable[[], int]:
    """Returns a function that tells the bytes that are kept of streams for clients that come back."""
    return lambda: store.logs.held


def _rejecting(ledger: StreamLedger, telling: telemetry.Telemetry) -> Reject:
    """The function that reports each refused request to the ledger, to the request's span, and, throttled, to the log."""
    rejections = Rejections()

    def reject(reason: str, cause: str = "") -> None:
        ledger.reject(reason)
        telling.rejected(reason)
        rejections(reason, cause)

    return reject


def _with_fields(app: Any, settings: Settings, gate: Gate) -> Any:
    """Wrap the routes in the middleware that tells callers of their limits, where they have any."""
    if not (settings.rate or settings.key_rate or settings.key_max_streams):
        return app
    return RateLimitFields(KeepSend(app), lambda scope: gate.standing(caller_of(scope)))


def _with_access(app: Any, settings: Settings, signing: Signing | None, reject: Callable[[str], None]) -> Any:
    """Wrap the routes in the middlewares for access: keys; outside of them CORS, since its preflights carry no key; and
    outermost the refusal of foreign pages."""
    if settings.keys:
        app = Keys(app, settings.keys, reject, signing)
    if settings.origins:
        app = CORSMiddleware(
            KeepSend(app),
            allow_origins=settings.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("retry-after", POLICY_FIELD, STANDING_FIELD, "x-request-id", STREAM_HEADER, *DEGRADED),
        )
    return Pages(app, settings.origins, None if settings.keys else settings.hosts, reject)


def _upstreams(settings: Settings, first_url: str) -> Upstreams:
    fallbacks = filter(None, settings.fallback_base_urls.split(","))
    return Upstreams(
        [
            Upstream(settings.upstream, first_url, settings.upstream_api_key),
            *(Upstream(settings.upstream, url, settings.fallback_api_key) for url in fallbacks),
        ],
        threshold=settings.breaker_failures,
        open_seconds=settings.breaker_open_seconds,
    )


def _serving(part: EventsOut | KafkaOut | Shared | None) -> AbstractAsyncContextManager[None]:
    return part.serving() if part is not None else nullcontext()


def _telling(events_out: EventsOut | None, kafka_out: KafkaOut | None) -> Callable[[Ending, Span], None] | None:
    """What is called at each stream's end; None where nobody is to be told."""
    if events_out is None and kafka_out is None:
        return None

    def ended(ending: Ending, span: Span) -> None:
        if events_out is not None:
            events_out.ended(ending, span.trace_id)
        if kafka_out is not None:
            kafka_out.ended(ending, span.headers.get("traceparent"))

    return ended


def _stream_options(
    settings: Settings, ledger: StreamLedger, ended: Callable[[Ending, Span], None] | None
) -> StreamOptions:
    return StreamOptions(
        settings.limits,
        settings.max_event_bytes,
        settings.degraded_message,
        _read_ahead(settings, ledger),
        ended,
    )


def _read_ahead(settings: Settings, ledger: StreamLedger) -> Callable[[Body], ReadAhead] | None:
    if not settings.read_ahead_bytes:
        return None
    read_bytes = settings.stream_budget.read_bytes
    pool = SegmentPool(segment_bytes=read_bytes // 2)
    ledger.pool = pool.statistics
    return lambda source: ReadAhead(source, settings.read_ahead_bytes, read_bytes, pool)
