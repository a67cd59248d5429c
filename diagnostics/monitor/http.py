"""The monitor's routes, and the one place where an error becomes a status."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..errors import DiagnosticsError
from . import metrics
from .access import Access, Policy
from .captures import Captures
from .profiles import DEFAULT_INTERVAL_SECONDS, WindowProfiles
from .recorder import Recorder
from .routes import captures as capture_routes
from .routes import pprof as pprof_routes
from .routes import timeline as timeline_routes
from .streams import rows_of
from .targets import Snapshot, Targets

__all__ = ["build"]

SCHEMA = "highwater.memory/1"


def build(
    targets: Targets,
    captures: Captures,
    recorder: Recorder,
    policy: Policy,
    pprof_interval: float = DEFAULT_INTERVAL_SECONDS,
) -> Starlette:
    """The ASGI app of the monitor; `pprof_interval` is the least time between two windows for /debug/pprof."""
    routes = _Routes(targets, captures, recorder)
    return Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/debug/memory")),
            Route("/debug/memory", routes.memory),
            Route("/debug/memory/balance", routes.balance),
            Route("/debug/memory/streams", routes.streams),
            timeline_routes.route(targets, recorder),
            *capture_routes.routes(captures),
            *pprof_routes.routes(targets, WindowProfiles(targets, captures, pprof_interval)),
            Route("/metrics", routes.metrics),
            Route("/healthz", lambda request: JSONResponse({"status": "ok"})),
        ],
        middleware=[Middleware(Access, policy=policy)],
        exception_handlers={DiagnosticsError: _diagnostics_error, HTTPException: _http_error},
    )


class _Routes:
    def __init__(self, targets: Targets, captures: Captures, recorder: Recorder) -> None:
        self._targets = targets
        self._captures = captures
        self._recorder = recorder

    async def memory(self, request: Request) -> Response:
        snapshots = await self._looked_at(request)
        return JSONResponse(
            {
                "schema": SCHEMA,
                "time": time.time(),
                "workers": [_with_streams(snapshot, self._captures) for snapshot in snapshots],
                "captures": [capture_routes.summary(capture) for capture in self._captures.all()],
            }
        )

    async def balance(self, request: Request) -> Response:
        workers = [
            {
                "worker": snapshot.worker,
                "pid": snapshot.process.pid,
                "state": snapshot.state,
                "balance": snapshot.balance,
            }
            for snapshot in await self._looked_at(request)
        ]
        return JSONResponse({"schema": SCHEMA, "time": time.time(), "workers": workers})

    async def streams(self, request: Request) -> Response:
        snapshots = await self._looked_at(request)
        rows = [
            {"worker": snapshot.worker, **row} for snapshot in snapshots for row in rows_of(snapshot, self._captures)
        ]
        rows.sort(key=lambda row: -row["held_bytes"])
        return JSONResponse({"schema": SCHEMA, "time": time.time(), "streams": rows})

    async def metrics(self, request: Request) -> Response:
        snapshots = [
            replace(snapshot, outlook=self._recorder.outlook(snapshot.process.pid))
            for snapshot in await self._targets.snapshots()
        ]
        body, content_type = metrics.exposition(snapshots, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def _looked_at(self, request: Request) -> list[Snapshot]:
        """All workers, or the one that ?worker= names. Raises NotFoundError."""
        name = request.query_params.get("worker")
        if name is None:
            return await self._targets.snapshots()
        snapshot = await self._targets.worker(name).snapshot()
        return [snapshot] if snapshot else []


def _with_streams(snapshot: Snapshot, captures: Captures) -> dict[str, Any]:
    told = snapshot.to_json()
    if told["ledger"]:
        told["ledger"] = {**told["ledger"], "top": rows_of(snapshot, captures)}
    return told


async def _diagnostics_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DiagnosticsError)
    return JSONResponse({"error": error.to_dict()}, status_code=error.http_status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {"code": "http", "message": f"{request.method} {request.url.path}: {error.detail}", "remedy": ""}
    return JSONResponse({"error": told}, status_code=error.status_code, headers=error.headers)
