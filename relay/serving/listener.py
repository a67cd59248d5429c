"""The relay's listening socket: bound before any process is started, so that a port in use is an error at once."""

from __future__ import annotations

import socket

from ..errors import ListenError

__all__ = ["bind", "url_of"]

BACKLOG = 4096


# TCP_USER_TIMEOUT in write time-outs: the relay's own time-out comes first, and logs the reason.
UNTAKEN_FACTOR = 2


def bind(
    host: str, port: int, send_buffer_bytes: int, receive_buffer_bytes: int = 0, write_timeout_seconds: float = 0
) -> socket.socket:
    """A listening socket; its options are inherited by every connection. Raises ListenError.

    send_buffer_bytes, receive_buffer_bytes   SO_SNDBUF and SO_RCVBUF; a receive buffer of 0 is the system's default
    write_timeout_seconds   how long a client may take no byte; 0: no bound. After the relay has closed a connection the kernel
                            keeps the last bytes of an answer, and would try to send them for minutes
    """
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
            untaken_milliseconds = int(write_timeout_seconds * UNTAKEN_FACTOR * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, untaken_milliseconds)
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
