"""A client's connection, its unsent bytes bounded, and within reach of the stream that is served on it.

uvicorn takes the class of its HTTP protocol as a setting, so this needs no patch. The transport's high-water mark is what
makes `send` wait (asyncio's own, 64 KiB, is for servers with fewer connections); the transport itself is handed to the app in
the scope's extensions, for the two things that ASGI cannot say: how much of it the client has not taken, and "give this
connection up now".
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["TRANSPORT", "bounded_protocol", "transport_of", "unsent_bytes"]

TRANSPORT: Final = "relay.transport"


def bounded_protocol(high_water_bytes: int) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, with this much for the bytes that the kernel has not taken yet."""

    class BoundedProtocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=high_water_bytes, low=high_water_bytes // 4)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]

    return BoundedProtocol


def transport_of(scope: Any) -> asyncio.Transport | None:
    """The transport of the request's connection; None under a server that is not ours."""
    transport: asyncio.Transport | None = scope.get("extensions", {}).get(TRANSPORT)
    return transport


def unsent_bytes(transport: asyncio.Transport) -> int:
    """What the client has not acknowledged: in the transport, and in the kernel (SIOCOUTQ, tcp(7))."""
    if transport.is_closing():
        return 0
    in_kernel = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
    return transport.get_write_buffer_size() + in_kernel[0]
