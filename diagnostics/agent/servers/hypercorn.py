"""hypercorn with its asyncio or uvloop worker: each request has a task in which `_handle` awaits the ASGI app."""

from __future__ import annotations

import time

from ..routes import UNROUTED, route_of
from .kind import CONNECTION, OTHER, REQUEST, SERVER, ServerKind
from .reach import descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .kind import Roles
    from .snapshot import OpenRequest, ServerLook

__all__ = ["Hypercorn"]

_TRIO = "hypercorn under trio: its streams are unknown, since they are served by no asyncio task"

_ROLES: Roles = {
    ("hypercorn.asyncio.run", "worker_serve"): SERVER,
    ("hypercorn.asyncio.run", "_server_callback"): CONNECTION,
    ("hypercorn.asyncio.task_group", "_handle"): REQUEST,
    ("hypercorn.asyncio.lifespan", "handle_lifespan"): OTHER,
    ("hypercorn.asyncio.tcp_server", "_idle_timeout"): OTHER,
    ("hypercorn.asyncio.tcp_server", "_initiate_server_close"): OTHER,
    ("hypercorn.asyncio.udp_server", "run"): OTHER,
    # On stacks of threads: these show that hypercorn serves.
    ("hypercorn.asyncio.run", "_run"): OTHER,
    ("hypercorn.asyncio.run", "asyncio_worker"): OTHER,
    ("hypercorn.asyncio.run", "uvloop_worker"): OTHER,
}
_BLIND: Roles = {("hypercorn.trio.run", "trio_worker"): _TRIO}


class Hypercorn(ServerKind):
    """The `thing` is hypercorn's stream: the app's `send` is bound to it, its own `send` to the protocol, and so on."""

    name = "hypercorn"
    modules = ("hypercorn.asyncio",)
    roles = _ROLES
    blind = _BLIND

    def thing(self, task: Any, names: Mapping[str, Any]) -> Any:
        return names["send"].__self__ if names["scope"]["type"] == "http" else None

    def begin(self, thing: Any, request: OpenRequest, look: ServerLook) -> None:
        request.since -= max(0.0, time.time() - thing.start_time)
        request.since_begun = True
        writer = _writer(thing.send.__self__)
        if writer is not None:
            request.fd = descriptor(writer.transport, look)

    def refresh(self, thing: Any, request: OpenRequest) -> bool:
        state = thing.state._name_
        if thing.closed or state == "CLOSED":
            return False
        if not request.started:
            request.started = state != "REQUEST"
            request.route = route_of(thing.scope) or UNROUTED
        protocol = thing.send.__self__
        buffers = getattr(protocol, "stream_buffers", None)
        if buffers is not None:
            # HTTP/2: each stream has its own buffer; the transport's is shared by all streams of the connection.
            own = buffers.get(thing.stream_id)
            request.transport_bytes = len(own.buffer) if own is not None else 0
            return True
        writer = _writer(protocol)
        request.transport_bytes = writer.transport.get_write_buffer_size() if writer is not None else None
        return True

    def method_and_path(self, thing: Any) -> tuple[Any, Any]:
        return thing.scope["method"], thing.scope["path"]


def _writer(protocol: Any) -> Any:
    """The stream writer of a connection; None for HTTP/3, which has datagrams instead."""
    return getattr(protocol.send.__self__, "writer", None)
