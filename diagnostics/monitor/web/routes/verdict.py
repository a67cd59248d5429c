"""GET /debug/memory/verdict and GET /debug/memory/rules.

`rules?dry_run=1` lists when the active rules would have fired over the whole recording of a worker (?worker=, else the
first); nothing is captured. A POST to the same address evaluates the rules in its body (TOML) instead.
"""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ....errors import UsageError
from ...judging.guard import Guard
from ...rules.rule import Rule
from ...rules.rule_file import parse
from ...workers.targets import Targets
from ..overview import SCHEMA, Overview

__all__ = ["routes"]

_MAX_BODY_BYTES = 64 * 1024


def routes(targets: Targets, overview: Overview, guard: Guard) -> list[Route]:
    trying = asyncio.Lock()  # one evaluation at a time: hours of readings take a second of CPU time

    async def verdict(request: Request) -> Response:
        name = request.query_params.get("worker")
        if name is None:
            snapshots = await targets.snapshots()
        else:
            snapshot = await targets.worker(name).snapshot()
            snapshots = [snapshot] if snapshot else []
        url = str(request.base_url).rstrip("/")
        verdicts = await overview.verdicts(snapshots, url)
        workers = [
            {"worker": snapshot.worker, "pid": snapshot.process.pid, **verdict}
            for snapshot, verdict in zip(snapshots, verdicts, strict=True)
        ]
        answer = {"schema": SCHEMA, "time": time.time(), "workers": workers}
        if name is None:
            answer["service"] = (await overview.service(snapshots, verdicts, url))["verdict"]
        return JSONResponse(answer)

    async def rules(request: Request) -> Response:
        if request.query_params.get("dry_run", "") in ("", "0"):
            return JSONResponse(guard.to_json())
        return await _tried(request, None)

    async def tried(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise UsageError(f"the body is larger than {_MAX_BODY_BYTES} bytes", remedy="send a few rules")
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"the body is not UTF-8: {error}", remedy="send rules as TOML") from error
        return await _tried(request, parse(text))

    async def _tried(request: Request, given: tuple[Rule, ...] | None) -> Response:
        worker = targets.worker(request.query_params.get("worker"))
        async with trying:
            fired = await asyncio.to_thread(guard.dry_run, worker, given)
        shown = [rule.to_json() for rule in (guard.rules if given is None else given)]
        return JSONResponse({"worker": worker.name, "dry_run": True, "rules": shown, "firings": fired})

    return [
        Route("/debug/memory/verdict", verdict),
        Route("/debug/memory/rules", rules),
        Route("/debug/memory/rules", tried, methods=["POST"]),
    ]
