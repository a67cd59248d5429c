"""granian, ASGI and RSGI: a server in Rust. Its connections are no Python objects; each request is a task that it starts.

Whether a response has begun, and how many bytes wait to be written, is known only to the Rust part: reported as unknown.
"""

from __future__ import annotations

from ..loops.coroutines import coroutine_of
from ..loops.frames import locals_of
from ..routes import UNROUTED, route_of
from .kind import OTHER, REQUEST, SERVER, ServerKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .kind import Roles
    from .snapshot import OpenRequest, ServerLook

__all__ = ["Granian"]

_RUNS = ("_spawn_asgi_worker", "_spawn_asgi_lifespan_worker", "_spawn_rsgi_worker")
_PLACES = ("granian.server.mp", "granian.server.mt", "granian.server.embed")
_WSGI = "granian with WSGI: its streams are unknown, since they are served by threads in Rust and by no asyncio task"
_RUST = "granian with --task-impl rust: its streams are unknown, since they are served by no asyncio task"

_ROLES: Roles = {
    **{(place, function): SERVER for place in _PLACES for function in _RUNS},
    **{(place, "_main"): SERVER for place in _PLACES},
    ("granian._futures", "future_watcher"): REQUEST,
    # On stacks of threads: these show that granian serves. The parent of several workers has the first one, too.
    **{(place, function): OTHER for place in _PLACES for function in ("serve", "wrapped", "wrap_target")},
}
_BLIND: Roles = {
    **{(place, "_spawn_wsgi_worker"): _WSGI for place in _PLACES},
    ("granian._futures", "_CBSchedulerTask"): _RUST,
}


class Granian(ServerKind):
    """The `thing` is the task: scope and protocol are objects in Rust without weak references."""

    name = "granian"
    modules = ("granian.server.mp", "granian.server.mt", "granian._futures")
    roles = _ROLES
    blind = _BLIND
    tells_connections = False

    def thing(self, task: Any, names: Mapping[str, Any]) -> Any:
        return task if _kind_of(names["watcher"].scope) == "http" else None

    def begin(self, thing: Any, request: OpenRequest, look: ServerLook) -> None:
        request.started = request.transport_bytes = None

    def refresh(self, thing: Any, request: OpenRequest) -> bool:
        if request.route == UNROUTED:
            scope = _scope(thing)
            if isinstance(scope, dict):
                request.route = route_of(scope) or UNROUTED
        return True

    def method_and_path(self, thing: Any) -> tuple[Any, Any]:
        scope = _scope(thing)
        if isinstance(scope, dict):
            return scope.get("method"), scope.get("path")
        return getattr(scope, "method", None), getattr(scope, "path", None)


def _kind_of(scope: Any) -> Any:
    """The scope's type, in ASGI's dictionary or in RSGI's object."""
    return scope["type"] if isinstance(scope, dict) else scope.proto


def _scope(task: Any) -> Any:
    frame = getattr(coroutine_of(task), "cr_frame", None)
    watcher = locals_of(frame).get("watcher") if frame is not None else None
    return getattr(watcher, "scope", None)
