"""Sanic's own server: each connection has a task, `connection_task`, that serves its requests one after another."""

from __future__ import annotations

import time

from ..routes import UNROUTED
from .kind import LASTING, SERVER, ServerKind
from .reach import descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .kind import Roles
    from .snapshot import OpenRequest, ServerLook

__all__ = ["Sanic"]

_SERVES = ("HANDLER", "RESPONSE", "FAILED")

_ROLES: Roles = {
    ("sanic.server.runners", "_serve_http_1"): SERVER,
    ("sanic.server.protocols.http_protocol", "connection_task"): LASTING,
}


class Sanic(ServerKind):
    """The `thing` is Sanic's request; its `stream` is the connection's `Http`, which refers to the protocol."""

    name = "sanic"
    modules = ("sanic.server.",)
    roles = _ROLES
    lasting = True

    def thing(self, task: Any, names: Mapping[str, Any]) -> Any:
        # The frame's only local is the protocol, which lives as long as the frame: reading it keeps nothing alive.
        http = getattr(names["self"], "_http", None)  # not set before the task's first step
        if http is None or http.stage._name_ not in _SERVES or http.upgrade_websocket:
            return None
        return http.request

    def begin(self, thing: Any, request: OpenRequest, look: ServerLook) -> None:
        http = thing.stream
        if http.perft0 is not None:
            request.since -= max(0.0, time.perf_counter() - http.perft0)
            request.since_begun = True
        if http.protocol.transport is not None:
            request.fd = descriptor(http.protocol.transport, look)

    def refresh(self, thing: Any, request: OpenRequest) -> bool:
        http = thing.stream
        transport = None if http is None else http.protocol.transport
        if transport is None or transport.is_closing() or http.request is not thing:
            return False
        if not request.started:
            request.started = http.stage._name_ == "RESPONSE"
            request.route = UNROUTED if thing.route is None else f"/{thing.route.path}"
        request.transport_bytes = transport.get_write_buffer_size()
        return True

    def method_and_path(self, thing: Any) -> tuple[Any, Any]:
        return thing.method, thing.raw_url.partition(b"?")[0].decode("latin-1")
