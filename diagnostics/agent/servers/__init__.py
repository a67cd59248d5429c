"""Finds the open connections of unmodified servers, without a patch, from the servers' own objects.

One file a server, and only that file uses the server's private names: `uvicorn` reads the server's own set of connections;
connections of `aiohttp`, `granian`, `hypercorn`, `sanic` and `tornado` are found by `tasks`, from the asyncio tasks that
serve them. For any other server the answer is `"source": "sockets"`, and the monitor counts sockets from outside.

A look is one pass over all servers; its result is a `ServerLook`.

The law of this folder: it runs on the agent's thread beside a busy loop. So it copies sets before it walks them, expects
every attribute to be missing, counts the objects that it could not read instead of raising, keeps no connection alive,
and makes no system call for a connection: each would release the GIL and wait up to 5 ms to get it back. It does release
the GIL after each slice of connections, so that thousands of them never stall the loop for longer than one slice.
It reports file descriptors; the monitor finds their sockets in /proc. It imports no server, and a server that is not
loaded costs one lookup in `sys.modules`.

Private names move from release to release. Where a server of a known kind runs and its objects are not where they are
looked for, the answer is that its streams are unknown, with the reason, and never that there are none.
"""

from __future__ import annotations

import time

from ..loops.asyncio_tasks import why_unseen
from .loaded import loaded
from .snapshot import ServerLook
from .uvicorn import Uvicorn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..ledger import StreamLedger
    from .tasks import TaskServers

__all__ = ["Servers"]

# As ledger.MAX_ROUTES.
_MAX_ROUTES = 100
_OTHER_ROUTE = "(other)"


class Servers:
    """The servers of this process and their open responses; used from the agent's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uvicorn = Uvicorn(clock)
        self._tasks: TaskServers | None = None
        # route -> whether the bytes in its transports are known: a route that had streams keeps its row, so that its gauges
        # return to zero instead of vanishing.
        self._routes: dict[str, bool] = {}
        self._unknown: list[str] = []

    def look(self, ledgers: Iterable[StreamLedger] = ()) -> ServerLook | None:
        """All connections now, under the ledgers' routes; None where no server of a known kind is found. Never raises."""
        look = ServerLook(self._clock())
        self._uvicorn.read(look)
        if self._tasks is None and loaded():
            from .tasks import TaskServers  # under uvicorn alone the agent does without it

            self._tasks = TaskServers(self._clock)
        if self._tasks is not None:
            self._tasks.read(look, alone=not look.servers)
        unseen = None if look.servers else why_unseen()
        if unseen is not None:
            look.unknown.append(f"whether a server runs that serves with tasks is not known: {unseen}")
        self._unknown = look.unknown
        if not look.servers:
            return None
        look.close(ledgers)
        return look

    @property
    def unseen(self) -> str | None:
        """Why a server that runs in this process could not be found or read; None where there is no such server."""
        return "; ".join(self._unknown) or None

    def to_json(self, look: ServerLook | None, top: int = 20) -> dict[str, Any]:
        """`look` for the monitor: sums and descriptors by route, and the `top` responses with the most bytes in transports.

        source   "server", or "sockets" where the monitor must count from outside
        server   the kinds of server that were found, None where there is none
        unknown  a sentence for each server that runs and whose streams could not be found
        open     connections: all, idle ones included (None: unknown); requests: not yet answered in full; streams: responses
                 begun and not ended
        routes   by route: open streams, and bytes in the write buffers of all open requests (None: unknown)
        fds      by route: the descriptors of the open requests, for the join with the kernel's queues (None: unknown)
        unread   kind of failure -> number of connections not read (they were just closing, or are of another release)
        """
        if look is None:
            return {"source": "sockets", "server": None, "unknown": self._unknown}
        routes: dict[str, dict[str, int | None]]
        routes = {route: {"open": 0, "transport_bytes": 0 if known else None} for route, known in self._routes.items()}
        fds: dict[str, list[int] | None] = {}
        streams = 0
        for route, sums in look.routes.items():
            route = self._known_route(route, sums.transport_bytes is not None)
            row = routes.setdefault(route, {"open": 0, "transport_bytes": 0})
            row["open"] = (row["open"] or 0) + sums.open
            streams += sums.open
            if sums.transport_bytes is None or row["transport_bytes"] is None:
                row["transport_bytes"] = fds[route] = None
            else:
                row["transport_bytes"] += sums.transport_bytes
                fds.setdefault(route, []).extend(sums.fds)  # type: ignore[union-attr]  # None goes with None bytes
        return {
            "source": "server",
            "server": ", ".join(look.servers),
            "unknown": look.unknown,
            "open": look.connections,
            "requests": len(look.requests),
            "streams": streams,
            "routes": routes,
            "fds": {**{route: None for route, known in self._routes.items() if not known}, **fds},
            "top": look.fullest(top),
            "unread": look.unread,
        }

    def _known_route(self, route: str, known: bool = True) -> str:
        """`route`, or "(other)" once there are too many; `known`: whether its bytes in transports are known."""
        if route not in self._routes and len(self._routes) >= _MAX_ROUTES:
            route = _OTHER_ROUTE
        self._routes[route] = known and self._routes.get(route, True)
        return route
