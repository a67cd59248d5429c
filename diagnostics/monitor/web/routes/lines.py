"""GET /debug/memory/lines: what each line of a worker's code holds by its live heap, and what it has gained.

| parameter | |
|---|---|
| worker | which one; the first where it is not given |
| seconds | since when, from now: that look of the recorder's, or the first one after it; 3600 by default |
| limit | how many lines, 20 by default: those that gained most, and those that hold most |

Of a worker that is recycled (max_requests) all lives that had not ended by then are told together.
"""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ....analysis.lines.growth import LineGrowth
from ....errors import NotFoundError, UsageError
from ...recording.recorder import Recorder
from ...workers.targets import Targets
from ..overview import SCHEMA, no_lines

__all__ = ["route"]

_DEFAULT_SECONDS, _DEFAULT_LIMIT, _MOST = 3600.0, 20, 1000


def route(targets: Targets, recorder: Recorder) -> Route:
    async def show(request: Request) -> Response:
        worker = targets.worker(request.query_params.get("worker"))
        seconds = _number(request, "seconds", _DEFAULT_SECONDS, 7 * 86_400.0)
        limit = round(_number(request, "limit", _DEFAULT_LIMIT, _MOST))
        now = time.time()
        gained = await recorder.lines_gained(worker.pid, worker.name, now - seconds, shared=False)
        answer = {"schema": SCHEMA, "time": now, "worker": worker.name}
        if gained is None:
            snapshot = await worker.snapshot()
            if snapshot is None:
                raise NotFoundError(f"worker {worker.name} has ended", remedy="diagnostics blackbox FILE")
            return JSONResponse(
                {**answer, "since": None, "seconds": None, "lives": 1, "rows": [], "unknown": no_lines(snapshot)}
            )
        since, rows = gained
        answer |= {
            "since": since,
            "seconds": rows[0].seconds if rows else now - since,
            "lives": rows[0].lives if rows else 1,
            "rows": [row.to_json() for row in _chosen(rows, limit)],
            "unknown": None,
        }
        return JSONResponse(answer)

    return Route("/debug/memory/lines", show)


def _chosen(rows: list[LineGrowth], limit: int) -> list[LineGrowth]:
    """Half of those that gained most, and the rest of those that hold most; in the order of what they gained."""
    kept = {row.frame for row in rows[: -(-limit // 2)]}
    for row in sorted(rows, key=lambda row: -row.held):
        if len(kept) >= limit:
            break
        kept.add(row.frame)
    return [row for row in rows if row.frame in kept]


def _number(request: Request, name: str, otherwise: float, most: float) -> float:
    text = request.query_params.get(name)
    try:
        number = otherwise if text is None else float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= most:
        raise UsageError(f"{name} is {text!r}", remedy=f"give a number above 0, {most:g} at most")
    return number
