"""The monitor's routes, and the one place where an error becomes a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ...errors import DiagnosticsError
from ..audit import Audit
from ..captures.controller import Captures
from ..captures.profiles import WindowProfiles
from ..judging.guard import Guard
from ..judging.judge import Judge
from ..recording.recorder import Recorder
from ..workers.registered import registered_by
from ..workers.targets import Targets
from .access import Access, Policy
from .exposition import exposition
from .fleet_look import FleetLook
from .metrics import Scraped
from .overview import Overview
from .routes import captures as capture_routes
from .routes import fleet as fleet_routes
from .routes import lines as line_routes
from .routes import login as login_routes
from .routes import page as page_routes
from .routes import parts as part_routes
from .routes import pprof as pprof_routes
from .routes import timeline as timeline_routes
from .routes import verdict as verdict_routes
from .routes.page import Events
from .token_guesses import Guesses

if TYPE_CHECKING:
    from ..egress.egress import Egress

__all__ = ["build"]


def build(
    targets: Targets,
    captures: Captures,
    recorder: Recorder,
    guard: Guard,
    judge: Judge,
    policy: Policy,
    audit: Audit,
    guesses: Guesses,
    pprof_interval: float,
    fleet: FleetLook,
    pushes: Callable[[str], Mapping[str, int]] | None = None,
    egress: Egress | None = None,
) -> tuple[Starlette, Events]:
    """The ASGI app of the monitor, and its event streams, which the caller must close.

    pprof_interval   minimum of seconds between two windows for /debug/pprof
    pushes           worker -> what became of the profiles of it that were pushed; None where none are
    egress           None where nothing is sent anywhere
    """
    routes = _Routes(targets, captures, recorder, guard, judge, pushes, egress)
    overview = Overview(targets, captures, judge, guard, recorder, egress)
    events = Events(overview)
    app = Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/debug/memory")),
            *page_routes.routes(targets, overview, events),
            *login_routes.routes(policy, audit, guesses),
            *verdict_routes.routes(targets, overview, guard),
            *part_routes.routes(targets, captures),
            timeline_routes.route(targets, recorder),
            line_routes.route(targets, recorder),
            fleet_routes.route(fleet),
            *capture_routes.routes(captures, audit, egress),
            *pprof_routes.routes(targets, WindowProfiles(targets, captures, pprof_interval), audit),
            Route("/metrics", routes.metrics),
            Route("/healthz", lambda request: JSONResponse({"status": "ok"})),
        ],
        middleware=[Middleware(Access, policy=policy, audit=audit, guesses=guesses)],
        exception_handlers={
            DiagnosticsError: _diagnostics_error,
            HTTPException: _http_error,
            ClientDisconnect: _nobody_left,
        },
    )
    return app, events


class _Routes:
    def __init__(
        self,
        targets: Targets,
        captures: Captures,
        recorder: Recorder,
        guard: Guard,
        judge: Judge,
        pushes: Callable[[str], Mapping[str, int]] | None,
        egress: Egress | None,
    ) -> None:
        self._pushes = pushes
        self._targets = targets
        self._captures = captures
        self._recorder = recorder
        self._guard = guard
        self._judge = judge
        self._egress = egress

    async def metrics(self, request: Request) -> Response:
        look = await self._recorder.whole.look()
        snapshots = await self._targets.snapshots()
        verdicts = [await self._judge.verdict(snapshot) for snapshot in snapshots]
        counted = [self._recorder.counted(snapshot.worker) for snapshot in snapshots]
        scraped = [
            Scraped.of(
                snapshot,
                verdict=verdict.word,
                restarts=restarts,
                oom_kills=killed,
                outlook=self._recorder.outlook(snapshot.process.pid),
                firings=self._guard.counted(snapshot.worker),
                actions=self._guard.counted_actions(snapshot.worker),
                captures=self._captures.counts_of(snapshot.worker),
                pushes=self._pushes(snapshot.worker) if self._pushes else {},
                children=look.children_of(snapshot.worker),
                egress=self._egress.counts_of(snapshot.worker) if self._egress is not None else None,
            )
            for snapshot, verdict, (restarts, killed) in zip(snapshots, verdicts, counted, strict=True)
        ]
        answering = {snapshot.worker for snapshot in scraped if snapshot.state == "answering"}
        workers = [worker for worker in self._targets.workers() if worker.name in answering]
        answers = await asyncio.gather(*map(registered_by, workers))
        registered = {worker.name: families for worker, families in zip(workers, answers, strict=True)}
        body, content_type = exposition(scraped, request.headers.get("accept", ""), registered)
        return Response(body, headers={"content-type": content_type})


async def _diagnostics_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DiagnosticsError)
    return JSONResponse({"error": error.to_dict()}, status_code=error.http_status)


async def _nobody_left(request: Request, error: Exception) -> Response:
    """The client has disconnected within its request's body."""
    return Response(status_code=499)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = {"code": "http", "message": f"{request.method} {request.url.path}: {error.detail}", "remedy": ""}
    return JSONResponse({"error": answer}, status_code=error.status_code, headers=error.headers)
