"""The relay's listening socket: bound once, before anything is started, so that a port in use is an error here and now."""

from __future__ import annotations

import socket

from ..errors import ListenError

__all__ = ["bind", "url_of"]

BACKLOG = 4096


def bind(host: str, port: int, send_buffer_bytes: int, receive_buffer_bytes: int = 0) -> socket.socket:
    """A listening socket; its buffers are inherited by every connection (0: the system's). Raises ListenError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
            if receive_buffer_bytes:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            remedy="choose another --host or --port (RELAY_HOST, RELAY_PORT); --port 0 takes any free one",
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
