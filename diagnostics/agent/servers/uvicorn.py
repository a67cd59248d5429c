"""uvicorn: its server, by the task that runs `serve`; then the server's connections and the cycles on them.

The way: task -> its coroutine -> a frame whose local is the `uvicorn.server.Server` -> `server_state.connections` -> for
each connection its transport and the request-response cycles on it.
"""

from __future__ import annotations

import sys
import weakref

from ..loops.coroutines import coroutine_of
from ..loops.frames import locals_of
from ..loops.running import slices_of_alive
from ..reading_cache import ReadingCache, rest_if_due, sliced
from ..routes import UNROUTED, frameworks_with_frames, route_in_frames, route_of
from .reach import copied, descriptor, get, has_base, modules_in_threads
from .releases import moved
from .snapshot import OpenRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .snapshot import ServerLook

__all__ = ["Uvicorn", "belongings_of", "cycle_of"]

# Once a server was found, a second one (an admin port) is searched for this often only.
_RESCAN_SECONDS = 30.0
# Limits of the search: `serve` is awaited by a few wrappers at most, and few tasks run the same coroutine as its task.
_MAX_AWAITS = 16
_MAX_ALIKE = 20
# Protocol classes of HTTP/1, whose request is in `cycle`; HTTP/2 has several requests, WebSocket none.
_HTTP1 = ("H11Protocol", "HttpToolsProtocol")
_ABSENT = object()


class Uvicorn:
    """Adds the connections and requests of this process's uvicorn servers to a look."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._servers: list[weakref.ref[Any]] = []
        self._scanned = float("-inf")
        self._open: dict[int, OpenRequest] = {}
        self._taskless: dict[int, OpenRequest] = {}
        self._serves = ReadingCache(_serves, share=1000, longest=5.0)

    def read(self, look: ServerLook) -> None:
        """Add all connections and open requests, or the reason why they are unknown."""
        if "uvicorn.server" not in sys.modules:
            return
        servers = self._find()
        known, self._open, self._taskless = self._open, {}, {}
        if not servers:
            if self._serves():
                look.unknown.append(moved("uvicorn", "the running Server"))
            return
        look.servers.append("uvicorn")
        before, unread = len(look.requests), len(look.unread)
        for server in servers:
            state = get(server, "server_state")
            connections = get(state, "connections")
            if connections is None:
                look.give_up("uvicorn", moved("uvicorn", "Server.server_state.connections"), before)
                return
            protocols = copied(connections)
            look.connections = (look.connections or 0) + len(protocols)
            for part in sliced(protocols):
                self._read(part, known, look)
            if self._taskless:
                self._match_tasks(get(state, "tasks") or (), look)
        if len(look.unread) > unread and len(look.requests) == before and look.missing:
            look.give_up("uvicorn", moved("uvicorn", look.missing), before)

    def _find(self) -> list[Any]:
        alive = [server for server in (ref() for ref in self._servers) if server is not None]
        now = self._clock()
        if not alive or now - self._scanned > _RESCAN_SECONDS:
            alive = list(_running_servers())
            self._servers = [weakref.ref(server) for server in alive]
            self._scanned = now
        return alive

    def _read(self, protocols: list[Any], known: dict[int, OpenRequest], look: ServerLook) -> None:
        """Add the open requests on these connections to the look. In one piece, because it runs for every connection."""
        still_open, requests = self._open, look.requests
        for protocol in protocols:
            try:
                one = getattr(protocol, "cycle", None)
                for cycle in (one,) if one is not None else _several(protocol):
                    if cycle.response_complete:
                        continue
                    key = id(cycle)
                    request = known.get(key)
                    if request is None or request.thing() is not cycle:
                        request = OpenRequest(cycle, look.now, method_and_path)
                        request.fd = descriptor(protocol.transport, look)
                        rest_if_due()  # a new one takes as long as twenty known ones
                    if not request.started:
                        # The router matches before the response starts; until then the request has no route.
                        request.started = cycle.response_started
                        request.route = route_of(cycle.scope) or UNROUTED
                    if not request.task:
                        self._taskless[key] = request
                    elif request.serving is not None and request.started:
                        _ask_frames(request)
                    still_open[key] = request
                    requests.append(request)
                    request.transport_bytes = protocol.transport.get_write_buffer_size()
            except Exception as error:  # noqa: BLE001  # any transport may raise anything: counted and skipped
                # A transport that sums its deque of buffers raises RuntimeError while the loop appends to it.
                look.could_not(f"connection: {type(error).__name__}: {error}")
                if isinstance(error, AttributeError) and error.obj is not None:
                    look.missing = f"{type(error.obj).__name__}.{error.name}"

    def _match_tasks(self, tasks: Iterable[Any], look: ServerLook) -> None:
        """Set the task of each request: the frame of the task's coroutine has the request's cycle as `self`."""
        known: set[int] = set()
        for part in sliced(look.requests):
            known.update(request.task for request in part)
        by_frame = frameworks_with_frames()
        for task in (task for part in sliced(copied(tasks)) for task in part if id(task) not in known):
            rest_if_due()
            frame = get(coroutine_of(task), "cr_frame")
            cycle = locals_of(frame).get("self") if frame is not None else None
            request = self._taskless.get(id(cycle))
            if request is not None:
                request.task = id(task)
                if by_frame and request.route == UNROUTED:
                    request.serving = weakref.ref(task)
                    if request.started:
                        _ask_frames(request)


def method_and_path(cycle: Any) -> tuple[Any, Any]:
    """Method and raw path of a cycle's request."""
    scope = getattr(cycle, "scope", None) or {}
    return scope.get("method"), scope.get("path")


def cycle_of(task: Any) -> Any:
    """The cycle of the request that a task serves, also after its client has left; None for any other task."""
    coroutine = coroutine_of(task)
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None or frame.f_code.co_name != "run_asgi":
        return None
    cycle = locals_of(frame).get("self")
    # Its class is private, so it is recognised by its attributes.
    wanted = ("scope", "transport", "response_started", "response_complete", "disconnected")
    return cycle if all(hasattr(cycle, name) for name in wanted) else None


def belongings_of(task: Any) -> Iterator[Any]:
    """uvicorn's objects for the request that a task serves, and for no other request."""
    cycle = cycle_of(task)
    if cycle is not None:
        yield cycle
        yield cycle.transport
        protocol = getattr(cycle.on_response, "__self__", None)
        if protocol is not None:
            yield protocol


def _ask_frames(request: OpenRequest) -> None:
    """Set the route from the task's frames, for a framework that leaves it in no scope; once, when the response has begun."""
    if request.serving is not None:
        request.route = route_in_frames(request.serving()) or request.route
        request.serving = None


def _several(protocol: Any) -> Iterable[Any]:
    """The requests on a connection without a `cycle`: of HTTP/2 all its streams'.

    WebSockets, and connections that have not negotiated their HTTP version yet, have none.
    """
    cycles = getattr(protocol, "cycles", None)
    if cycles:
        return copied(cycles.values())
    if getattr(protocol, "cycle", _ABSENT) is _ABSENT and type(protocol).__name__ in _HTTP1:
        raise AttributeError(f"{type(protocol).__name__} has no cycle", name="cycle", obj=protocol)
    return ()


def _running_servers() -> Iterator[Any]:
    known: set[int] = set()
    alike: dict[Any, int] = {}
    for task in (task for part in slices_of_alive() for task in part):
        coroutine = coroutine_of(task)
        code = getattr(coroutine, "cr_code", None)
        alike[code] = seen = alike.get(code, 0) + 1
        if seen > _MAX_ALIKE:
            continue
        for server in _servers_of(coroutine):
            if id(server) not in known:
                known.add(id(server))
                yield server


def _servers_of(coroutine: Any) -> Iterator[Any]:
    """Servers among the locals of a coroutine and of those it awaits: a wrapper may have called `serve`."""
    for _ in range(_MAX_AWAITS):
        if coroutine is None:
            return
        frame = get(coroutine, "cr_frame")
        names = locals_of(frame) if frame is not None else {}
        for name in ("self", "server"):
            candidate = names.get(name)
            if candidate is not None and has_base(type(candidate), "uvicorn.server", "Server"):
                yield candidate
        coroutine = get(coroutine, "cr_await")


def _serves() -> bool:
    """Whether a thread runs code of `uvicorn.server`."""
    return any(module == "uvicorn.server" for module, _ in modules_in_threads())
