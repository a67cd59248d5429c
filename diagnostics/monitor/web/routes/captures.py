"""/debug/memory/captures: begin, list, show, cancel and delete captures; their artifacts and differences."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ....errors import BusyError, DiagnosticsError, UsageError
from ...audit import Audit
from ...captures.controller import Captures
from ...captures.difference import FORMATS
from ...captures.reader import run_reader
from ..access import asker_of

if TYPE_CHECKING:
    from ...egress.egress import Egress

__all__ = ["routes"]

# A capture request is a kind and a few options.
_MAX_BODY_BYTES = 64 * 1024
# Differences are made by a process of its own, one at a time; so many requests may wait.
_MAX_WANTED = 4

# Rendered flame graphs are pages with inline scripts; nothing else may run or be loaded.
_PAGE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
_PAGE_HEADERS = {"Content-Security-Policy": _PAGE_POLICY, "X-Content-Type-Options": "nosniff"}


def routes(captures: Captures, audit: Audit, egress: Egress | None = None) -> list[Route]:
    handlers = _Handlers(captures, audit, egress)
    return [
        Route("/debug/memory/captures", handlers.all),
        Route("/debug/memory/captures", handlers.begin, methods=["POST"]),
        Route("/debug/memory/captures/{id}", handlers.one),
        Route("/debug/memory/captures/{id}", handlers.remove, methods=["DELETE"]),
        Route("/debug/memory/captures/{id}/artifacts/{name}", handlers.artifact),
        Route("/debug/memory/captures/{id}/diff/{other}", handlers.difference),
    ]


class _Handlers:
    def __init__(self, captures: Captures, audit: Audit, egress: Egress | None) -> None:
        self._captures = captures
        self._audit = audit
        self._egress = egress
        self._rendering = asyncio.Semaphore(1)
        self._wanted = 0

    async def all(self, request: Request) -> Response:
        return JSONResponse({"captures": [self._with_egress(capture) for capture in self._captures.all()]})

    def _with_egress(self, capture: dict[str, Any]) -> dict[str, Any]:
        """A capture with the state of its upload, where there is egress."""
        return capture if self._egress is None else {**capture, "egress": self._egress.state_of(capture["id"])}

    async def begin(self, request: Request) -> Response:
        wanted, asker = await _json_body(request), asker_of(request.scope)
        facts = {key: wanted[key] for key in ("kind", "worker", "seconds", "force") if key in wanted}
        try:
            capture = await self._captures.begin(wanted)
        except DiagnosticsError as error:
            self._audit.note("capture", error.code, asker, **facts)
            raise
        self._audit.note("capture", "begun", asker, **facts, capture=capture["id"])
        location = f"/debug/memory/captures/{capture['id']}"
        return JSONResponse(capture, status_code=202, headers={"Location": location})

    async def one(self, request: Request) -> Response:
        return JSONResponse(self._with_egress(self._captures.find(request.path_params["id"])))

    async def remove(self, request: Request) -> Response:
        capture_id = request.path_params["id"]
        await self._captures.remove(capture_id)
        self._audit.note("remove", "done", asker_of(request.scope), capture=capture_id)
        return Response(status_code=204)

    async def artifact(self, request: Request) -> Response:
        path = self._captures.store.artifact(request.path_params["id"], request.path_params["name"])
        self._audit.note("artifact", "sent", asker_of(request.scope), capture=path.parent.name, name=path.name)
        # A .gz artifact is sent as it is: with Content-Encoding a browser would unpack it.
        packed = path.name.endswith(".gz")
        media_type = (None if packed else mimetypes.guess_type(path.name)[0]) or "application/octet-stream"
        return FileResponse(path, media_type=media_type, headers=_PAGE_HEADERS)

    async def difference(self, request: Request) -> Response:
        """The profile of capture `id` minus that of `other`, as ?format= json, html, text or pprof."""
        after, before = request.path_params["id"], request.path_params["other"]
        chosen = request.query_params.get("format", "json")
        if chosen not in FORMATS:
            raise UsageError(f"format is {chosen!r}", remedy=f"choose one of {', '.join(FORMATS)}")
        self._captures.comparable(after, before)
        if self._wanted >= _MAX_WANTED:
            raise BusyError(f"{self._wanted} differences are being made", remedy="ask again in a few seconds")
        paths = [str(self._captures.store.artifact(name, "profile.json")) for name in (after, before)]
        self._wanted += 1
        try:
            async with self._rendering:
                body = await _difference(paths, chosen)
        finally:
            self._wanted -= 1
        return Response(body, media_type=FORMATS[chosen][0], headers=_PAGE_HEADERS)


async def _difference(paths: list[str], chosen: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="highwater-diff-") as folder:
        output = Path(folder) / "difference"
        await run_reader("-m", "diagnostics.monitor.captures.difference", *paths, "--format", chosen, output=output)
        return output.read_bytes()


async def _json_body(request: Request) -> dict[str, Any]:
    """Raises UsageError unless the body is a JSON object sent as application/json, which no HTML form can send."""
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
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}", remedy='send {"kind": "memray", "seconds": 5}') from error
    if not isinstance(parsed, dict):
        raise UsageError(f"the body is a JSON {type(parsed).__name__}", remedy="send an object")
    return parsed
