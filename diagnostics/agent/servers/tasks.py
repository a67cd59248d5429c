"""Servers that serve with asyncio tasks: one pass over all tasks finds their connections and their open requests.

A server's file in this folder (a `ServerKind`) has a table of its coroutines, by module and function, and reads the frame of
one that serves a request. The role of a coroutine is cached by its code object, so that most tasks of a service cost one
dictionary lookup. A request is cached by its task, whose frame is not read a second time.
"""

from __future__ import annotations

import weakref

from ..loops.coroutines import coroutine_of
from ..loops.frames import locals_of
from ..loops.running import slices_of_alive
from ..reading_cache import ReadingCache, rest_if_due
from ..routes import UNROUTED, frameworks_with_frames, route_in_frames
from .kind import CONNECTION, LASTING, OTHER, REQUEST, SERVER
from .loaded import loaded
from .reach import modules_in_threads
from .snapshot import OpenRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .kind import ServerKind
    from .snapshot import ServerLook

__all__ = ["TaskServers"]

# Where one server was found, further ones that are loaded are searched for this often only.
_RESCAN_SECONDS = 30.0
# A service has some dozens of coroutine functions; one that creates functions without end must not fill the cache.
_MAX_CODES = 5000
_NOBODY: tuple[Any, ServerKind | None, str] = (None, None, OTHER)


class TaskServers:
    """Adds the connections and requests of all servers that serve with tasks to a look."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[str, ServerKind] = {}
        # By id() of a code object, which is kept in the value so that no other object gets its id.
        self._roles: dict[int, tuple[Any, ServerKind | None, str]] = {}
        self._open: dict[int, OpenRequest] = {}
        self._scanned = float("-inf")
        self._threads = ReadingCache(lambda: set(modules_in_threads()), share=1000, longest=5.0)

    def read(self, look: ServerLook, alone: bool) -> None:
        """Add all connections and open requests, or the reasons why they are unknown; `alone`: no other server was found."""
        kinds = self._loaded()
        if not kinds:
            return
        if not alone and not any(kind.seen for kind in kinds):
            if look.now - self._scanned < _RESCAN_SECONDS:
                return
            self._scanned = look.now
        for kind in kinds:
            kind.new_look()
        known, self._open = self._open, {}
        for part in slices_of_alive():
            self._walk(part, known, look)
            part.clear()  # nothing here keeps a task that ends meanwhile
        self._look_at_threads(kinds)
        for kind in kinds:
            reason = kind.why_unknown()
            if reason:
                look.unknown.append(reason)
            elif kind.seen:
                look.servers.append(kind.name)
                reported = look.connections is not None and kind.tells_connections
                look.connections = (look.connections or 0) + self._connections(kind, look) if reported else None
                look.requests.extend(kind.requests)

    def _connections(self, kind: ServerKind, look: ServerLook) -> int:
        try:
            return kind.open_connections()
        except Exception as error:  # noqa: BLE001  # as in _walk
            look.could_not(f"connections: {type(error).__name__}: {error}")
            return kind.connections

    def _loaded(self) -> list[ServerKind]:
        if len(self._kinds) < len(_KINDS):
            for name in loaded():
                if name not in self._kinds:
                    self._kinds[name] = _KINDS[name]()
                    self._roles.clear()  # coroutines of no known server may be this one's
        return list(self._kinds.values())

    def _walk(self, tasks: list[Any], known: dict[int, OpenRequest], look: ServerLook) -> None:
        """Add the requests of these tasks. In one piece, because it runs for every task of the service."""
        roles, still_open, by_frames = self._roles, self._open, frameworks_with_frames()
        request: Any
        for task in tasks:
            request = known.get(id(task))
            if request is not None and request.serving() is task:
                if task.done():
                    continue
            else:
                coroutine = coroutine_of(task)
                _, kind, role = roles.get(id(getattr(coroutine, "cr_code", None))) or self._classify(task, coroutine)
                if kind is None or task.done():  # a done task may still be referenced
                    continue
                if role is CONNECTION or role is LASTING:
                    kind.connections += 1
                if role is not REQUEST and role is not LASTING:
                    continue
                request = self._request_of(kind, task, coroutine, known, look)
                if request is None:
                    continue
            kind = request.kind
            try:
                thing = request.thing()
                if thing is None or not kind.refresh(thing, request):
                    continue
                if by_frames and request.started is not False and request.route == UNROUTED and not request.sought:
                    request.sought = request.started is True
                    request.route = route_in_frames(task) or UNROUTED
            except Exception as error:  # noqa: BLE001  # any object of the service may raise anything: counted, skipped
                look.could_not(f"connection: {type(error).__name__}: {error}")
                kind.could_not(error)
                continue
            still_open[id(thing) if kind.lasting else id(task)] = request
            kind.requests.append(request)

    def _request_of(
        self, kind: ServerKind, task: Any, coroutine: Any, known: dict[int, OpenRequest], look: ServerLook
    ) -> OpenRequest | None:
        """The request that a task serves: a new one, or one of a task that serves several requests."""
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return None
        try:
            thing = kind.thing(task, locals_of(frame))
            if thing is None:
                return None
            seen = known.get(id(thing)) if kind.lasting else None
            if seen is not None and seen.thing() is thing:
                return seen
            request = OpenRequest(thing, look.now, kind.method_and_path)
            request.kind = kind
            request.task = id(task)
            request.serving = weakref.ref(task)
            kind.begin(thing, request, look)
        except Exception as error:  # noqa: BLE001  # as above
            # No failure where the coroutine has ended meanwhile: then it has no frame.
            if getattr(coroutine, "cr_frame", None) is not None:
                look.could_not(f"request: {type(error).__name__}: {error}")
                kind.could_not(error)
            return None
        rest_if_due()
        return request

    def _classify(self, task: Any, coroutine: Any) -> tuple[Any, ServerKind | None, str]:
        """(code, server, role) of a coroutine whose code object is not cached yet."""
        code = getattr(coroutine, "cr_code", None)
        frame = getattr(coroutine, "cr_frame", None)
        if code is None or frame is None:
            odd = (type(task).__module__, type(task).__name__)
            for kind in self._kinds.values():
                if odd in kind.blind:
                    kind.reason = kind.blind[odd]
            return _NOBODY
        entry = _NOBODY
        where = (str(frame.f_globals.get("__name__")), code.co_name)
        for kind in self._kinds.values():
            role = kind.roles.get(where)
            if role is not None:
                entry = (code, kind, role)
                kind.seen = kind.seen or role is not OTHER
            elif where[0].startswith(kind.modules):
                kind.strays.add(".".join(where))
        if len(self._roles) >= _MAX_CODES:
            self._roles.clear()
        self._roles[id(code)] = entry if entry is not _NOBODY else (code, None, OTHER)
        return entry

    def _look_at_threads(self, kinds: list[ServerKind]) -> None:
        """Find servers that no task has shown by the threads that are in their code."""
        for kind in kinds:
            if kind.seen and not kind.blind:
                continue
            kind.in_threads.clear()
            for where in self._threads():
                role = kind.roles.get(where)
                kind.seen = kind.seen or role is SERVER
                if where in kind.blind:
                    kind.reason = kind.blind[where]
                elif role is None and where[0].startswith(kind.modules):
                    kind.in_threads.add(".".join(where))
            kind.seen = kind.seen or kind.listens()


def _aiohttp() -> ServerKind:
    from .aiohttp import Aiohttp

    return Aiohttp()


def _granian() -> ServerKind:
    from .granian import Granian

    return Granian()


def _hypercorn() -> ServerKind:
    from .hypercorn import Hypercorn

    return Hypercorn()


def _sanic() -> ServerKind:
    from .sanic import Sanic

    return Sanic()


def _tornado() -> ServerKind:
    from .tornado import Tornado

    return Tornado()


# The file of a server that is not loaded is not imported.
_KINDS: dict[str, Callable[[], ServerKind]] = {
    "aiohttp": _aiohttp,
    "granian": _granian,
    "hypercorn": _hypercorn,
    "sanic": _sanic,
    "tornado": _tornado,
}
