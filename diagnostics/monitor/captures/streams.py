"""Open streams as the monitor shows them: the ledger's rows, with the results and time of the last `retained` capture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..workers.targets import Snapshot
from .controller import Captures

__all__ = ["rows_of", "with_retained"]


def rows_of(snapshot: Snapshot, captures: Captures) -> list[dict[str, Any]]:
    """The largest open streams of one worker, most held bytes first."""
    return with_retained(snapshot.streams(), captures.latest(snapshot.worker, snapshot.process.pid, "retained"))


def with_retained(rows: Iterable[dict[str, Any]], captured: dict[str, Any] | None) -> list[dict[str, Any]]:
    """`rows` with `retained_bytes` and `retained_time` (wall-clock seconds); None for a stream that no capture has."""
    retained = {
        (stream["route"], stream["id"]): stream["retained_bytes"] for stream in (captured or {}).get("streams", ())
    }
    time = captured["time"] if captured else None
    return [
        {**row, "retained_bytes": held, "retained_time": time if held is not None else None}
        for row in rows
        for held in (retained.get((row.get("route"), row.get("id"))),)
    ]
