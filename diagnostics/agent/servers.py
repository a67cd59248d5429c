"""Finds the open connections of an unmodified uvicorn, without a patch: what the server itself knows is followed, not copied.

The way: task -> its coroutine -> a frame whose local is the `uvicorn.server.Server` -> `server_state.connections` -> for
each connection its transport and the request-response cycles on it. Other servers (hypercorn, granian) keep their
connections elsewhere, some of them not in Python at all: for them the answer is `"source": "sockets"`, and the monitor
counts sockets from outside.

The law of this file: it runs on the agent's thread beside a busy loop. So it copies sets before it walks them, takes every
attribute as one that may just have gone, counts what it could not read instead of raising, holds no connection alive,
and makes no system call for a connection: each would give the GIL away and wait up to 5 ms to get it back. It does give
the GIL away after each slice of connections, so that thousands of them never hold the loop for longer than a slice takes.
It tells file descriptors; whose socket that is, the monitor reads from /proc.
"""

from __future__ import annotations

import sys
import time
import weakref

from .looks import Look, OpenRequest
from .loops import alive_tasks
from .routes import UNROUTED, route_of
from .thrift import rest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .ledger import StreamLedger

__all__ = ["Servers"]

# A server that was found stays the server. A second one (an admin port) may come later.
_RESCAN_SECONDS = 30.0
# A server's `serve` is awaited by a few wrappers at most, and is not one of hundreds of tasks with the same coroutine.
_MAX_AWAITS = 16
_MAX_ALIKE = 20
# A connection takes about half a microsecond, one that is seen for the first time ten; a slice stays well below a millisecond.
_SLICE, _SLICE_OF_NEW = 1000, 50
# Route templates are few; see ledger.MAX_ROUTES.
_MAX_ROUTES = 100
_OTHER_ROUTE = "(other)"


class Servers:
    """The servers of this process and their open responses; used from the agent's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._servers: list[weakref.ref[Any]] = []
        self._scanned = float("-inf")
        self._open: dict[int, OpenRequest] = {}
        self._routes: set[str] = set()

    def look(self, ledgers: Iterable[StreamLedger] = ()) -> Look | None:
        """All connections now, by the ledgers' routes; None where no server of a known kind runs here. Never raises."""
        servers = self._find()
        if not servers:
            self._open = {}
            return None
        look = Look(self._clock())
        known, self._open = self._open, {}
        for server in servers:
            state = _get(server, "server_state")
            protocols = _copied(_get(state, "connections") or ())
            look.connections += len(protocols)
            for start in range(0, len(protocols), _SLICE):
                if start:
                    rest()
                self._read(protocols[start : start + _SLICE], known, look)
            if look.taskless:
                _match_tasks(_get(state, "tasks") or (), look)
        look.close(ledgers)
        return look

    def to_json(self, look: Look | None, top: int = 20) -> dict[str, Any]:
        """`look` for the monitor: sums and descriptors by route, and the `top` responses with the fullest transports.

        source   "server", or "sockets" where the monitor must count from outside
        open     connections, idle ones included; requests: those with one unanswered; streams: answers begun and not ended
        routes   by route: streams open, and bytes in the write buffers of all open requests
        fds      by route, the descriptor of each open request, for the join with the kernel's queues
        unread  what could not be read of how many connections (they were just closing, or are of another release)
        """
        if look is None:
            return {"source": "sockets", "server": None}
        # A route that had streams keeps its row, so that its gauges return to zero instead of vanishing.
        routes = {route: {"open": 0, "transport_bytes": 0} for route in self._routes}
        fds: dict[str, list[int]] = {}
        for route, found in look.routes.items():
            route = self._known_route(route)
            row = routes.setdefault(route, {"open": 0, "transport_bytes": 0})
            row["open"] += found.open
            row["transport_bytes"] += found.transport_bytes
            fds.setdefault(route, []).extend(found.fds)
        return {
            "source": "server",
            "server": "uvicorn",
            "open": look.connections,
            "requests": len(look.requests),
            "streams": sum(row["open"] for row in routes.values()),
            "routes": routes,
            "fds": fds,
            "top": look.fullest(top),
            "unread": look.unread,
        }

    def _known_route(self, route: str) -> str:
        """`route`, or the word for all others once there are too many."""
        if route not in self._routes and len(self._routes) >= _MAX_ROUTES:
            route = _OTHER_ROUTE
        self._routes.add(route)
        return route

    def _find(self) -> list[Any]:
        alive = [server for server in (ref() for ref in self._servers) if server is not None]
        now = self._clock()
        if "uvicorn.server" in sys.modules and (not alive or now - self._scanned > _RESCAN_SECONDS):
            alive = list(_running_servers())
            self._servers = [weakref.ref(server) for server in alive]
            self._scanned = now
        return alive

    def _read(self, protocols: list[Any], known: dict[int, OpenRequest], look: Look) -> None:
        """Add the open requests on these connections to the look. Written out in one piece: it runs for every connection."""
        still_open, requests, met = self._open, look.requests, 0
        for protocol in protocols:
            try:
                one = getattr(protocol, "cycle", None)
                for cycle in (one,) if one is not None else _several(protocol):
                    if cycle.response_complete:
                        continue
                    key = id(cycle)
                    request = known.get(key)
                    if request is None or request.cycle() is not cycle:
                        request = OpenRequest(cycle, look.now)
                        request.fd = _descriptor(protocol.transport, look)
                        met += 1
                        if met % _SLICE_OF_NEW == 0:
                            rest()
                    if not request.started:
                        # The router matches before the response starts; until then the request is without a route.
                        request.started = cycle.response_started
                        request.route = route_of(cycle.scope) or UNROUTED
                    if not request.task:
                        look.taskless[key] = request
                    still_open[key] = request
                    requests.append(request)
                    request.transport_bytes = protocol.transport.get_write_buffer_size()
            except Exception as error:  # noqa: BLE001  # any transport class, dying at any moment: counted and passed over
                # A transport whose buffer is a deque cannot sum it while the loop appends: it raises RuntimeError.
                look.could_not(f"connection: {type(error).__name__}: {error}")


def _several(protocol: Any) -> Iterable[Any]:
    """The requests on a connection that has no `cycle`: HTTP/2 has several by their stream's number.

    WebSockets, and connections that have not said yet which HTTP they speak, have none.
    """
    cycles = getattr(protocol, "cycles", None)
    return _copied(cycles.values()) if cycles else ()


def _running_servers() -> Iterator[Any]:
    found: set[int] = set()
    alike: dict[Any, int] = {}
    for number, task in enumerate(alive_tasks(), 1):
        if number % _SLICE == 0:
            rest()
        coroutine = _get(task, "get_coro", call=True)
        code = getattr(coroutine, "cr_code", None)
        alike[code] = seen = alike.get(code, 0) + 1
        if seen > _MAX_ALIKE:
            continue
        for server in _servers_of(coroutine):
            if id(server) not in found:
                found.add(id(server))
                yield server


def _servers_of(coroutine: Any) -> Iterator[Any]:
    """Servers among the locals of a coroutine and of those it awaits: `serve` may have been called by a wrapper."""
    for _ in range(_MAX_AWAITS):
        if coroutine is None:
            return
        frame = _get(coroutine, "cr_frame")
        names = _get(frame, "f_locals") or {}
        for name in ("self", "server"):
            candidate = names.get(name)
            if candidate is not None and _is_uvicorn(type(candidate)):
                yield candidate
        coroutine = _get(coroutine, "cr_await")


def _is_uvicorn(kind: type) -> bool:
    return any(base.__name__ == "Server" and base.__module__ == "uvicorn.server" for base in kind.__mro__)


def _match_tasks(tasks: Iterable[Any], look: Look) -> None:
    """Tell each request its task: the frame of its coroutine has the cycle as its `self`."""
    known = {request.task for request in look.requests}
    asked = 0
    for task in _copied(tasks):
        if id(task) in known:
            continue
        asked += 1
        if asked % _SLICE_OF_NEW == 0:
            rest()
        frame = _get(_get(task, "get_coro", call=True), "cr_frame")
        cycle = (_get(frame, "f_locals") or {}).get("self")
        request = look.taskless.get(id(cycle))
        if request is not None:
            request.task = id(task)


def _descriptor(transport: Any, look: Look) -> int | None:
    try:
        fd: int = transport.get_extra_info("socket").fileno()
    except Exception as error:  # noqa: BLE001  # as for the buffer's size
        look.could_not(f"descriptor: {type(error).__name__}")
        return None
    return fd if fd >= 0 else None


def _copied(live: Iterable[Any]) -> list[Any]:
    """A copy of a collection that another thread changes; empty where it never holds still (as asyncio.all_tasks tries)."""
    for _ in range(100):
        try:
            return list(live)
        except RuntimeError:
            continue
    return []


def _get(thing: Any, name: str, call: bool = False) -> Any:
    """An attribute of something that may be gone; None then."""
    value = getattr(thing, name, None)
    return value() if call and value is not None else value
