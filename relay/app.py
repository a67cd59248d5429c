"""Puts the relay together: the only place where its parts are made and given to each other. Its routes are in api/routes.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from diagnostics import MonitorProcess, StreamLedger, instrument

from . import telemetry
from .admission.gate import Gate
from .admission.keys import Keys
from .admission.pages import Pages
from .admission.rejection_log import Rejections
from .api.error_handlers import add_error_handlers
from .api.relay import Relay
from .api.routes import ROUTES, add_page, add_routes
from .client.bounds import Reject
from .client.outside import KeepSend, Outside
from .hub.backends import hub_of
from .hub.events_out import EventsOut
from .memory.buffer import SegmentPool
from .memory.limit import memory_share
from .memory.requests import RequestBudget
from .resume.backends import store_of
from .resume.reply import STREAM_HEADER
from .resume.store import Store
from .settings import Settings
from .stream.call import StreamOptions
from .stream.degraded import DEGRADED
from .stream.read_ahead import ReadAhead
from .stream.sweep import sweep
from .upstream.body import Body
from .upstream.upstream import Upstream
from .upstream.upstreams import Upstreams

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
                relay.hub.serving(),
                relay.events_out.serving() if relay.events_out else nullcontext(),
                relay.resuming.serving() if relay.resuming else nullcontext(),
            ):
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
        # telemetry/ traces; FastAPI's own telemetry would log values that fail validation, which may be prompts.
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
    store = store_of(settings.resuming) if settings.resuming else None
    kept = _kept(store) if store else None
    ledger.kept = kept
    gate = Gate(settings.admission, reject=reject, memory=memory_share(settings.memory_limit_bytes), kept=kept)
    hub = hub_of(settings.topics, settings.redis, reject)
    events_out = EventsOut(hub, settings.stream_events_topic) if settings.stream_events_topic else None
    request_budget = RequestBudget(settings.requests_bytes)
    ledger.requests = lambda: {"heads": request_budget.heads, "bodies": request_budget.bodies}
    relay = Relay(
        settings,
        upstream_url,
        ledger,
        telling,
        gate,
        _stream_options(settings, ledger, events_out),
        hub,
        reject,
        request_budget,
        events_out,
        store,
    )
    relay.api = api
    relay.app = Outside(
        telling.wrap(_with_access(ledger.app, settings, reject)),
        telling.seen,
        settings.stream_budget.write_high_water_bytes,
    )
    add_routes(api, relay)
    add_page(api, settings, monitor.url if isinstance(monitor, MonitorProcess) else None)
    add_error_handlers(api)
    return relay


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


def _with_access(app: Any, settings: Settings, reject: Callable[[str], None]) -> Any:
    """Wrap the routes in the middlewares for access: keys; outside of them CORS, since its preflights carry no key; and
    outermost the refusal of foreign pages."""
    if settings.keys:
        app = Keys(app, settings.keys, reject)
    if settings.origins:
        app = CORSMiddleware(
            KeepSend(app),
            allow_origins=settings.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("retry-after", "x-request-id", STREAM_HEADER, *DEGRADED),
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


def _stream_options(settings: Settings, ledger: StreamLedger, events_out: EventsOut | None) -> StreamOptions:
    return StreamOptions(
        settings.limits,
        settings.max_event_bytes,
        settings.degraded_message,
        _read_ahead(settings, ledger),
        events_out.ended if events_out else None,
    )


def _read_ahead(settings: Settings, ledger: StreamLedger) -> Callable[[Body], ReadAhead] | None:
    if not settings.read_ahead_bytes:
        return None
    read_bytes = settings.stream_budget.read_bytes
    pool = SegmentPool(segment_bytes=read_bytes // 2)
    ledger.pool = pool.statistics
    return lambda source: ReadAhead(source, settings.read_ahead_bytes, read_bytes, pool)
