"""Tornado's HTTP server: each request of an `Application` has a task that runs its handler's `_execute`."""

from __future__ import annotations

import sys
import time

from ..routes import UNROUTED
from .kind import CONNECTION, OTHER, REQUEST, ServerKind
from .reach import copied, has_base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .kind import Roles
    from .snapshot import OpenRequest, ServerLook

__all__ = ["Tornado"]

# Of routers within routers.
_MAX_DEPTH = 4

_ROLES: Roles = {
    ("tornado.http1connection", "_server_request_loop"): CONNECTION,
    ("tornado.web", "_execute"): REQUEST,
    # Tornado's HTTP client runs these.
    ("tornado.http1connection", "_read_message"): OTHER,
    ("tornado.http1connection", "_read_message_inner"): OTHER,
}


class Tornado(ServerKind):
    """The `thing` is the handler, which Tornado makes for each request."""

    name = "tornado"
    modules = ("tornado.http1connection", "tornado.httpserver")
    roles = _ROLES

    def new_look(self) -> None:
        super().new_look()
        self.given_away = 0

    def listens(self) -> bool:
        return any(True for _ in _servers())

    def open_connections(self) -> int:
        """Counts open streams, because a connection's task outlives it where a handler fails after the client has gone."""
        servers = list(_servers())
        if not servers:
            return self.connections
        open_streams = sum(not one.stream.closed() for server in servers for one in copied(server._connections))
        return open_streams + self.given_away

    def thing(self, task: Any, names: Mapping[str, Any]) -> Any:
        handler = names["self"]
        if not has_base(type(handler), "tornado.websocket", "WebSocketHandler"):
            return handler
        connection = handler.request.connection
        # With the upgrade to WebSocket the HTTP server detaches the connection.
        self.given_away += connection is not None and connection.stream is None
        return None

    def begin(self, thing: Any, request: OpenRequest, look: ServerLook) -> None:
        request.since -= max(0.0, time.time() - thing.request._start_time)
        request.since_begun = True
        request.route = _pattern(thing)
        connection = thing.request.connection
        if connection is not None and not connection.stream.closed():
            request.fd = connection.stream.socket.fileno()

    def refresh(self, thing: Any, request: OpenRequest) -> bool:
        connection = thing.request.connection
        if connection is None or thing._finished or connection.stream.closed():
            return False
        request.started = thing._headers_written
        request.transport_bytes = len(connection.stream._write_buffer)
        return True

    def method_and_path(self, thing: Any) -> tuple[Any, Any]:
        return thing.request.method, thing.request.path


def _servers() -> Iterator[Any]:
    """The HTTP servers of Tornado's event loops, found through each loop's accept handlers."""
    loops = getattr(getattr(sys.modules.get("tornado.ioloop"), "IOLoop", None), "_ioloop_for_asyncio", None) or {}
    for loop in copied(loops.values()):
        for _file, handler in copied((getattr(loop, "handlers", None) or {}).values()):
            if getattr(handler, "__module__", None) != "tornado.netutil":
                continue
            for cell in handler.__closure__ or ():
                server = getattr(cell.cell_contents, "__self__", None)
                if server is not None and has_base(type(server), "tornado.httpserver", "HTTPServer"):
                    yield server


def _pattern(handler: Any) -> str:
    """The URL pattern of the rule for this handler; of several rules with its class the first that matches the path."""
    path = handler.request.path
    for rule in _rules(handler.application.default_router, 0):
        if rule.target is type(handler):
            regex = getattr(rule.matcher, "regex", None)
            if regex is None:
                continue
            if regex.match(path):
                return str(regex.pattern).removesuffix("$")
    return UNROUTED


def _rules(router: Any, depth: int) -> Iterator[Any]:
    for rule in list(router.rules):
        target = rule.target
        if hasattr(target, "rules") and depth < _MAX_DEPTH:
            yield from _rules(target, depth + 1)
        else:
            yield rule
