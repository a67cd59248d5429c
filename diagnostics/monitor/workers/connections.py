"""Joins the connections that a worker's agent reports with the kernel's queues of their sockets.

source      what is known
ledger      streams as the app's middleware counts them, with all three layers
server      the server's open responses: route, path, transport and kernel bytes; the app's own bytes are unknown
sockets     the number of connections to the worker's listening ports, and the bytes in their kernel queues

`unknown` has a sentence for each server in the worker whose streams are unknown.
"""

from __future__ import annotations

from typing import Any

from ...agent.routes import UNROUTED
from ...agent.servers.releases import CHECKED
from ..kernel.sockets import Served, Sockets

__all__ = ["connections_of", "streams_of"]

_NOTHING: dict[str, Any] = {"source": "sockets", "server": None, "unknown": []}
_OTHER_SERVER = (
    f"no server that the agent can look into serves here ({', '.join(sorted(CHECKED))}): "
    "its streams are unknown, its connections are counted from outside"
)
_NO_AGENT = "no agent looks into what serves here: its streams are unknown, its connections are counted from outside"


def connections_of(pid: int, reading: dict[str, Any] | None, sockets: Sockets) -> dict[str, Any]:
    """The worker's connections, with bytes in the kernel's queues. `reading`: the agent's; None where there is no agent.

    Removes the agent's lists of descriptors from `reading`: they are valid at this moment only.
    """
    connections = (reading or {}).get("connections") or _NOTHING
    if connections["source"] != "server":
        served = sockets.served(pid)
        unknown = connections["unknown"]
        if served.ports and not unknown and not (reading or {}).get("ledger"):
            unknown = [_OTHER_SERVER if reading else _NO_AGENT]
        row = {"open": None, "transport_bytes": None, "kernel_bytes": served.kernel_bytes}
        return {
            **connections,
            "unknown": unknown,
            "ports": list(served.ports),
            "open": served.connections,
            "routes": {UNROUTED: row} if served.ports else {},
            "top": [],
        }
    by_route: dict[str, list[int] | None] = connections.pop("fds", {})
    ledger_rows = ((reading or {}).get("ledger") or {}).get("top", ())
    unsent = sockets.unsent(pid, {fd for fds in by_route.values() for fd in fds or ()})
    for route, row in connections["routes"].items():
        # Several HTTP/2 requests share one connection: its queue is counted once.
        fds = by_route.get(route, ())
        held = [unsent[fd] for fd in set(fds or ()) if fd in unsent]
        # A connection closed meanwhile has no queue; that of a unix socket is unknown.
        row["kernel_bytes"] = sum(held) if held or not (fds is None or fds or row["open"]) else None
    if connections["open"] is None:
        _count_from_outside(connections, sockets.served(pid))
    for row in (*connections["top"], *ledger_rows):
        row["kernel_bytes"] = unsent.get(row.pop("fd", None))
    if ledger_rows or (reading or {}).get("ledger"):
        connections["source"] = "ledger"
    return connections


def _count_from_outside(connections: dict[str, Any], served: Served) -> None:
    """For a server that does not report its connections: add the kernel's count and bytes of all, as "(unrouted)"."""
    connections["open"], connections["ports"] = served.connections, list(served.ports)
    if served.ports:
        row = connections["routes"].setdefault(UNROUTED, {"open": 0, "transport_bytes": None})
        row["kernel_bytes"] = served.kernel_bytes


def streams_of(reading: dict[str, Any] | None, connections: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each stream that is known individually, the one with the most bytes first.

    Where a server does not report whether a response has begun (`response_started` is None), an open request is a stream.
    Every row has source, route, age_seconds, buffered_bytes (the app's, None without a ledger), transport_bytes,
    kernel_bytes (None where unknown) and held_bytes, the sum of the known layers (None where none is known).
    """
    ledger = (reading or {}).get("ledger")
    source = "ledger" if ledger else connections["source"]
    listed = ledger["top"] if ledger else [row for row in connections["top"] if row["response_started"] is not False]
    empty = {"buffered_bytes": None, "transport_bytes": None, "kernel_bytes": None}
    rows = [{**empty, **row, "source": source} for row in listed]
    for row in rows:
        known = [row[layer] for layer in empty if row[layer] is not None]
        row["held_bytes"] = sum(known) if known else None
    return sorted(rows, key=lambda row: (-(row["held_bytes"] or 0), -row["age_seconds"]))
