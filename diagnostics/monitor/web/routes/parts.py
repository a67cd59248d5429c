"""GET /debug/memory/{balance,streams,tasks,objects}: one part of the page each, as JSON, of all workers or of ?worker=.

Counts of tasks and objects are current; their stacks and types are those of the last capture of the kind. A GET never begins
one: a read-only token must not capture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...captures.controller import Captures
from ...captures.streams import rows_of
from ...workers.targets import Snapshot, Targets
from ..overview import SCHEMA

__all__ = ["routes"]


def routes(targets: Targets, captures: Captures) -> list[Route]:
    def part(read: Callable[[Snapshot], dict[str, Any]]) -> Callable[[Request], Any]:
        async def handler(request: Request) -> Response:
            return _answer(workers=[{**_who(snapshot), **read(snapshot)} for snapshot in await _snapshots(request)])

        return handler

    async def streams(request: Request) -> Response:
        snapshots = await _snapshots(request)
        rows = [{"worker": snapshot.worker, **row} for snapshot in snapshots for row in rows_of(snapshot, captures)]
        unknown = [
            {"worker": snapshot.worker, "reason": reason}
            for snapshot in snapshots
            for reason in snapshot.connections.get("unknown", ())
        ]
        return _answer(streams=sorted(rows, key=lambda row: -(row["held_bytes"] or 0)), unknown=unknown)

    async def _snapshots(request: Request) -> list[Snapshot]:
        """All workers, or the one that ?worker= names. Raises NotFoundError."""
        name = request.query_params.get("worker")
        if name is None:
            return await targets.snapshots()
        snapshot = await targets.worker(name).snapshot()
        return [snapshot] if snapshot else []

    def balance(snapshot: Snapshot) -> dict[str, Any]:
        return {"balance": snapshot.balance}

    def tasks(snapshot: Snapshot) -> dict[str, Any]:
        reading = snapshot.reading or {}
        captured = _last(snapshot, "tasks", ("total_count", "not_awaited", "states", "threads", "top", "not_covered"))
        unknown = (reading.get("unknown") or {}).get("tasks")
        states = reading.get("task_states")
        return {"tasks": reading.get("tasks"), "task_states": states, "unknown": unknown, "captured": captured}

    def objects(snapshot: Snapshot) -> dict[str, Any]:
        reading = snapshot.reading or {}
        keys = ("total_count", "total_bytes", "bytes_delta", "seconds", "top", "paths", "not_covered")
        blocks = (reading.get("allocators") or {}).get("python_blocks")
        return {"python_blocks": blocks, "gc": reading.get("gc"), "captured": _last(snapshot, "objects", keys)}

    def _last(snapshot: Snapshot, kind: str, keys: Iterable[str]) -> dict[str, Any] | None:
        """The last capture of the kind with its id and its age in seconds; None where there is none of this process."""
        latest = captures.latest_capture(snapshot.worker, snapshot.process.pid, kind)
        if latest is None:
            return None
        return {"id": latest.id, "age_seconds": latest.age_seconds, **{key: latest.result.get(key) for key in keys}}

    return [
        Route("/debug/memory/balance", part(balance)),
        Route("/debug/memory/streams", streams),
        Route("/debug/memory/tasks", part(tasks)),
        Route("/debug/memory/objects", part(objects)),
    ]


def _who(snapshot: Snapshot) -> dict[str, Any]:
    return {"worker": snapshot.worker, "pid": snapshot.process.pid, "state": snapshot.state}


def _answer(**parts: Any) -> Response:
    return JSONResponse({"schema": SCHEMA, "time": time.time(), **parts})
