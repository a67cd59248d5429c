"""What the kernel does not let us see of a worker's connections: it is unknown, where what was read looks like none."""

from __future__ import annotations

from typing import Any

from ..kernel.sockets import Sockets

__all__ = ["without_hidden"]


def without_hidden(connections: dict[str, Any], pid: int, sockets: Sockets) -> dict[str, Any]:
    """`connections_of` process `pid`, with None for what was counted from outside where its descriptors cannot be read.

    `unknown` then has a sentence that says why.
    """
    why = sockets.why_hidden(pid)
    if why is None:
        return connections
    counted = {} if connections["source"] != "sockets" else {"open": None, "ports": None}
    routes = {route: {**row, "kernel_bytes": None} for route, row in connections["routes"].items()}
    return {**connections, **counted, "routes": routes, "unknown": [*connections.get("unknown", ()), why]}
