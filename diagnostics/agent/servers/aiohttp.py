"""aiohttp.web, by itself or under gunicorn: each request has a task that runs `RequestHandler._handle_request`."""

from __future__ import annotations

from ..routes import UNROUTED
from .kind import CONNECTION, REQUEST, SERVER, ServerKind
from .reach import descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .kind import Roles
    from .snapshot import OpenRequest, ServerLook

__all__ = ["Aiohttp"]

_ROLES: Roles = {
    ("aiohttp.web", "_run_app"): SERVER,
    ("aiohttp.worker", "_run"): SERVER,
    ("aiohttp.web_protocol", "start"): CONNECTION,
    ("aiohttp.web_protocol", "_handle_request"): REQUEST,
}


class Aiohttp(ServerKind):
    """The `thing` is aiohttp's request. Its task also writes a response that the handler returned."""

    name = "aiohttp"
    modules = ("aiohttp.web", "aiohttp.worker")
    roles = _ROLES

    def thing(self, task: Any, names: Mapping[str, Any]) -> Any:
        return names["request"]

    def begin(self, thing: Any, request: OpenRequest, look: ServerLook) -> None:
        transport = thing.transport
        if transport is not None:
            request.fd = descriptor(transport, look)

    def refresh(self, thing: Any, request: OpenRequest) -> bool:
        protocol = thing._protocol
        transport = protocol.transport
        if transport is None:
            self.gone += 1  # the handler goes on, unless aiohttp is configured to cancel it
            return False
        # A connection has a payload parser once it speaks WebSocket.
        if protocol._payload_parser is not None:
            return False
        if not request.started:
            request.started = thing._payload_writer.output_size > 0
            match = thing._match_info
            resource = None if match is None else match.route.resource
            request.route = UNROUTED if resource is None else resource.canonical
        request.transport_bytes = transport.get_write_buffer_size()
        return True

    def method_and_path(self, thing: Any) -> tuple[Any, Any]:
        return thing.method, thing.raw_path.partition("?")[0]
