"""Servers that serve with asyncio tasks: one pass over all tasks finds their connections and their open requests.

A server's file in this folder is a table of its coroutines, by module and function (a `Kind`), and what is read from the
frame of one that serves a request. What a coroutine is for is remembered by its code, so that for most tasks of a service a
look is one dictionary lookup. A request is remembered by its task, whose frame is not read a second time. Only frames that
end with their request are read, or such as have nothing of a request in them: up to Python 3.12 a frame keeps what was
read of its locals alive as long as it runs.
"""

from __future__ import annotations

import sys
import weakref

from ..loops.coroutines import coroutine_of
from ..loops.running import alive_tasks
from ..routes import UNROUTED, frameworks_with_frames, route_in_frames
from ..thrift import Thrifty, rest
from .kind import CONNECTION, LASTING, OTHER, REQUEST, SERVER
from .looks import OpenRequest
from .reach import SLICE_OF_NEW, SLICE_OF_TASKS, modules_in_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .kind import Kind
    from .looks import Look

__all__ = ["TaskServers"]

# Where another server was found, one that is loaded and was never seen to serve is looked for as rarely as a second one.
_RESCAN_SECONDS = 30.0
# The coroutines of a service are some dozens; one that makes functions all the time must not fill this up.
_MAX_CODES = 5000
_NOBODY: tuple[Any, Kind | None, str] = (None, None, OTHER)


class TaskServers:
    """Adds to a look what the servers of this process that serve with tasks know."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[str, Kind] = {}
        # By id() of a code object, which is held here so that no other one gets its id.
        self._roles: dict[int, tuple[Any, Kind | None, str]] = {}
        self._open: dict[int, OpenRequest] = {}
        self._scanned = float("-inf")
        self._met = 0
        self._threads = Thrifty(lambda: set(modules_in_threads()), share=1000, longest=5.0)

    def read(self, look: Look, alone: bool) -> None:
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
        tasks = alive_tasks()
        for start in range(0, len(tasks), SLICE_OF_TASKS):
            if start:
                rest()
            self._walk(tasks[start : start + SLICE_OF_TASKS], known, look)
        del tasks
        self._look_at_threads(kinds)
        for kind in kinds:
            reason = kind.why_unknown()
            if reason:
                look.unknown.append(reason)
            elif kind.seen:
                look.servers.append(kind.name)
                told = look.connections is not None and kind.tells_connections
                look.connections = (look.connections or 0) + self._connections(kind, look) if told else None
                look.requests.extend(kind.requests)

    def _connections(self, kind: Kind, look: Look) -> int:
        try:
            return kind.open_connections()
        except Exception as error:  # noqa: BLE001  # as in _walk
            look.could_not(f"connections: {type(error).__name__}: {error}")
            return kind.connections

    def _loaded(self) -> list[Kind]:
        if len(self._kinds) < len(_KINDS):
            for name, loaded, make in _KINDS:
                if name not in self._kinds and any(module in sys.modules for module in loaded):
                    self._kinds[name] = make()
                    self._roles.clear()  # what was taken for nobody's may be this one's
        return list(self._kinds.values())

    def _walk(self, tasks: list[Any], known: dict[int, OpenRequest], look: Look) -> None:
        """Look at these tasks. Written out in one piece: it runs for every task of the service."""
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
                if kind is None or task.done():  # someone may hold a task that has ended
                    continue
                if role is CONNECTION or role is LASTING:
                    kind.connections += 1
                if role is not REQUEST and role is not LASTING:
                    continue
                request = self._meet(kind, task, coroutine, known, look)
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
            except Exception as error:  # noqa: BLE001  # any object of the service, dying at any moment: counted, passed over
                look.could_not(f"connection: {type(error).__name__}: {error}")
                kind.could_not(error)
                continue
            still_open[id(thing) if kind.lasting else id(task)] = request
            kind.requests.append(request)

    def _meet(
        self, kind: Kind, task: Any, coroutine: Any, known: dict[int, OpenRequest], look: Look
    ) -> OpenRequest | None:
        """The request that a task serves, which no look has seen, or which is not the only one of this task."""
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return None
        try:
            thing = kind.thing(task, frame.f_locals)
            if thing is None:
                return None
            seen = known.get(id(thing)) if kind.lasting else None
            if seen is not None and seen.thing() is thing:
                return seen
            request = OpenRequest(thing, look.now, kind.asked)
            request.kind = kind
            request.task = id(task)
            request.serving = weakref.ref(task)
            kind.begin(thing, request, look)
            self._met += 1
        except Exception as error:  # noqa: BLE001  # as above
            # A frame that ended meanwhile has no locals: nothing has moved then.
            if getattr(coroutine, "cr_frame", None) is not None:
                look.could_not(f"request: {type(error).__name__}: {error}")
                kind.could_not(error)
            return None
        if self._met % SLICE_OF_NEW == 0:
            rest()
        return request

    def _classify(self, task: Any, coroutine: Any) -> tuple[Any, Kind | None, str]:
        """What a coroutine is for, when its code is seen for the first time."""
        code = getattr(coroutine, "cr_code", None)
        frame = getattr(coroutine, "cr_frame", None)
        if code is None or frame is None:
            odd = (type(task).__module__, type(task).__name__)
            for kind in self._kinds.values():
                if odd in kind.blind:
                    kind.reason = kind.blind[odd]
            return _NOBODY
        found = _NOBODY
        where = (str(frame.f_globals.get("__name__")), code.co_name)
        for kind in self._kinds.values():
            role = kind.roles.get(where)
            if role is not None:
                found = (code, kind, role)
                kind.seen = kind.seen or role is not OTHER
            elif where[0].startswith(kind.modules):
                kind.strays.add(".".join(where))
        if len(self._roles) >= _MAX_CODES:
            self._roles.clear()
        self._roles[id(code)] = found if found is not _NOBODY else (code, None, OTHER)
        return found

    def _look_at_threads(self, kinds: list[Kind]) -> None:
        """Servers that no task has shown: the thread that runs one is inside of its code."""
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


def _aiohttp() -> Kind:
    from .aiohttp import Aiohttp

    return Aiohttp()


def _granian() -> Kind:
    from .granian import Granian

    return Granian()


def _hypercorn() -> Kind:
    from .hypercorn import Hypercorn

    return Hypercorn()


def _sanic() -> Kind:
    from .sanic import Sanic

    return Sanic()


def _tornado() -> Kind:
    from .tornado import Tornado

    return Tornado()


# Each by a public module that only a process imports that may serve with it. The file of a server that is not loaded is not
# imported either.
_KINDS: tuple[tuple[str, tuple[str, ...], Callable[[], Kind]], ...] = (
    ("aiohttp", ("aiohttp.web",), _aiohttp),
    ("granian", ("granian.server",), _granian),
    ("hypercorn", ("hypercorn.asyncio", "hypercorn.trio"), _hypercorn),
    ("sanic", ("sanic.server",), _sanic),
    ("tornado", ("tornado.httpserver",), _tornado),
)
