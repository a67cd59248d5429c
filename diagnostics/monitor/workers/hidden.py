"""Marks connections as unknown where the kernel hides a worker's descriptors: the counts from outside would be 0."""

from __future__ import annotations

from typing import Any

from ..kernel.sockets import Sockets

__all__ = ["without_hidden"]


def without_hidden(connections: dict[str, Any], pid: int, sockets: Sockets) -> dict[str, Any]:
    """`connections_of` process `pid`, with None for counts from outside where its descriptors cannot be read.

    `unknown` then has a sentence that says why.
    """
    why = sockets.why_hidden(pid)
    if why is None:
        return connections
    counted = {} if connections["source"] != "sockets" else {"open": None, "ports": None}
    routes = {route: {**row, "kernel_bytes": None} for route, row in connections["routes"].items()}
    return {**connections, **counted, "routes": routes, "unknown": [*connections.get("unknown", ()), why]}
