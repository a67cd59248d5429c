"""Joins what a worker's agent tells of its connections with what the kernel holds for them.

source      what is known
ledger      streams as the app's middleware counts them, with all three layers
server      responses that uvicorn has open: route, path, transport and kernel bytes; the app's own bytes are unknown
sockets     how many clients are connected to the ports that the worker listens on, and what the kernel holds for them
"""

from __future__ import annotations

from typing import Any

from ..agent.routes import UNROUTED
from .sockets import Sockets

__all__ = ["connections_of", "streams_of"]

_NOTHING: dict[str, Any] = {"source": "sockets", "server": None}


def connections_of(pid: int, reading: dict[str, Any] | None, sockets: Sockets) -> dict[str, Any]:
    """The worker's connections, kernel bytes added. `reading` is the agent's; None where there is no agent.

    Takes the agent's lists of descriptors out of `reading`: they are true for this moment only.
    """
    told = (reading or {}).get("connections") or _NOTHING
    if told["source"] != "server":
        served = sockets.served(pid)
        row = {"open": None, "transport_bytes": None, "kernel_bytes": served.kernel_bytes}
        return {
            **_NOTHING,
            "ports": list(served.ports),
            "open": served.connections,
            "routes": {UNROUTED: row} if served.ports else {},
            "top": [],
        }
    by_route: dict[str, list[int]] = told.pop("fds", {})
    ledger_rows = ((reading or {}).get("ledger") or {}).get("top", ())
    unsent = sockets.unsent(pid, {fd for fds in by_route.values() for fd in fds})
    for route, row in told["routes"].items():
        # HTTP/2 has several requests on one connection: its queue is counted once.
        fds = set(by_route.get(route, ()))
        held = [unsent[fd] for fd in fds if fd in unsent]
        # A connection that has closed since holds nothing; of one to a Unix socket it is not known.
        row["kernel_bytes"] = sum(held) if held or not (fds or row["open"]) else None
    for row in (*told["top"], *ledger_rows):
        row["kernel_bytes"] = unsent.get(row.pop("fd", None))
    if ledger_rows or (reading or {}).get("ledger"):
        told["source"] = "ledger"
    return told


def streams_of(reading: dict[str, Any] | None, connections: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each stream that is known by itself, the one that holds the most bytes first.

    Every row has source, route, age_seconds, buffered_bytes (the app's, None where it keeps no ledger), transport_bytes,
    kernel_bytes (None where unknown) and held_bytes, the sum of the layers that are known.
    """
    ledger = (reading or {}).get("ledger")
    source = "ledger" if ledger else connections["source"]
    told = ledger["top"] if ledger else [row for row in connections["top"] if row["response_started"]]
    empty = {"buffered_bytes": None, "transport_bytes": None, "kernel_bytes": None}
    rows = [{**empty, **row, "source": source} for row in told]
    for row in rows:
        row["held_bytes"] = sum(row[layer] or 0 for layer in empty)
    return sorted(rows, key=lambda row: (-row["held_bytes"], -row["age_seconds"]))
