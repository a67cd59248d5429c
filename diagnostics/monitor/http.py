"""The monitor's routes, and the one place where an error becomes a status."""

from __future__ import annotations

import json
import mimetypes
import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..errors import DiagnosticsError, UsageError
from . import metrics
from .access import Access, Policy
from .captures import Captures
from .streams import rows_of
from .targets import Snapshot, Targets

__all__ = ["build"]

SCHEMA = "highwater.memory/1"

# A capture request is a kind and a few options.
_MAX_BODY_BYTES = 64 * 1024

# Rendered flamegraphs are pages of their own with inline scripts; nothing else may run or be loaded.
_ARTIFACT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)


def build(targets: Targets, captures: Captures, policy: Policy) -> Starlette:
    """The ASGI app of the monitor."""
    routes = _Routes(targets, captures)
    return Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/debug/memory")),
            Route("/debug/memory", routes.memory),
            Route("/debug/memory/balance", routes.balance),
            Route("/debug/memory/streams", routes.streams),
            Route("/debug/memory/captures", routes.list_captures),
            Route("/debug/memory/captures", routes.begin_capture, methods=["POST"]),
            Route("/debug/memory/captures/{id}", routes.capture),
            Route("/debug/memory/captures/{id}", routes.remove_capture, methods=["DELETE"]),
            Route("/debug/memory/captures/{id}/artifacts/{name}", routes.artifact),
            Route("/metrics", routes.metrics),
            Route("/healthz", lambda request: JSONResponse({"status": "ok"})),
        ],
        middleware=[Middleware(Access, policy=policy)],
        exception_handlers={DiagnosticsError: _diagnostics_error, HTTPException: _http_error},
    )


class _Routes:
    def __init__(self, targets: Targets, captures: Captures) -> None:
        self._targets = targets
        self._captures = captures

    async def memory(self, request: Request) -> Response:
        snapshots = await self._looked_at(request)
        return JSONResponse(
            {
                "schema": SCHEMA,
                "time": time.time(),
                "workers": [_with_streams(snapshot, self._captures) for snapshot in snapshots],
                "captures": [_summary(capture) for capture in self._captures.all()],
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
        rows.sort(key=lambda row: -row["buffered_bytes"])
        return JSONResponse({"schema": SCHEMA, "time": time.time(), "streams": rows})

    async def metrics(self, request: Request) -> Response:
        body, content_type = metrics.exposition(await self._targets.snapshots(), request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def list_captures(self, request: Request) -> Response:
        return JSONResponse({"captures": self._captures.all()})

    async def begin_capture(self, request: Request) -> Response:
        capture = self._captures.begin(await _json_body(request))
        location = f"/debug/memory/captures/{capture['id']}"
        return JSONResponse(capture, status_code=202, headers={"Location": location})

    async def capture(self, request: Request) -> Response:
        return JSONResponse(self._captures.find(request.path_params["id"]))

    async def remove_capture(self, request: Request) -> Response:
        await self._captures.remove(request.path_params["id"])
        return Response(status_code=204)

    async def artifact(self, request: Request) -> Response:
        path = self._captures.store.artifact(request.path_params["id"], request.path_params["name"])
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        headers = {"Content-Security-Policy": _ARTIFACT_POLICY, "X-Content-Type-Options": "nosniff"}
        return FileResponse(path, media_type=media_type, headers=headers)

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


def _summary(capture: dict[str, Any]) -> dict[str, Any]:
    """A capture without its result, which has its own route."""
    return {key: capture[key] for key in ("id", "kind", "worker", "created", "state", "progress", "error")}


async def _json_body(request: Request) -> dict[str, Any]:
    """Raises UsageError unless the body is a JSON object sent as JSON (which no form of a foreign page can do)."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise UsageError(f"the body is {media_type or 'of no type'}", remedy="send Content-Type: application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise UsageError(
                f"the body is larger than {_MAX_BODY_BYTES} bytes", remedy='send {"kind": ..., "seconds": ...}'
            )
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise UsageError(f"the body is not JSON: {error}", remedy='send {"kind": "memray", "seconds": 5}') from error
    if not isinstance(parsed, dict):
        raise UsageError(f"the body is a JSON {type(parsed).__name__}", remedy="send an object")
    return parsed


async def _diagnostics_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DiagnosticsError)
    return JSONResponse({"error": error.to_dict()}, status_code=error.http_status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {"code": "http", "message": f"{request.method} {request.url.path}: {error.detail}", "remedy": ""}
    return JSONResponse({"error": told}, status_code=error.status_code, headers=error.headers)
