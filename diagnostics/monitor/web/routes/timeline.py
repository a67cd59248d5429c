"""GET /debug/memory/timeline: a worker's recording of the flight recorder.

| parameter | |
|---|---|
| worker | its number; default: the first |
| seconds | how far back from now; default: an hour; 0: everything |
| format | json (default) or csv |
"""

from __future__ import annotations

import math
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ....errors import NotFoundError, UsageError
from ...recording import timeline
from ...recording.recorder import Recorder
from ...workers.targets import Targets, Worker

__all__ = ["route"]

_DEFAULT_SECONDS = 3600.0


def route(targets: Targets, recorder: Recorder) -> Route:
    async def show(request: Request) -> Response:
        worker = _worker(targets, request.query_params.get("worker"))
        seconds = _seconds(request.query_params.get("seconds"))
        shape = request.query_params.get("format", "json")
        if shape not in ("json", "csv"):
            raise UsageError(f"format is {shape!r}", remedy="choose json or csv")
        recording, path = recorder.recording(worker)
        now = time.time()
        since = now - seconds if seconds else -math.inf
        if shape == "csv":
            return Response(timeline.to_csv(recording, since), media_type="text/csv")
        answer = timeline.to_json(recording, since, recorder.lives(worker.name))
        answer["recorder"]["file"] = str(path) if path else None
        return JSONResponse({"schema": "highwater.timeline/1", "time": now, "worker": worker.name, **answer})

    return Route("/debug/memory/timeline", show)


def _worker(targets: Targets, name: str | None) -> Worker:
    """The worker of this name; for None the first one, with an agent or not. Raises NotFoundError."""
    if name is not None:
        return targets.worker(name)
    workers = targets.workers()
    if not workers:
        raise NotFoundError("no worker is there", remedy="start the service with `diagnostics run -- CMD`")
    return next((worker for worker in workers if worker.socket is not None), workers[0])


def _seconds(text: str | None) -> float:
    if text is None:
        return _DEFAULT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(f"seconds is {text!r}", remedy="give a number of seconds, 0 for everything")
    return seconds
