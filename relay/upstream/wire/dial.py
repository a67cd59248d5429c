"""Opens sockets to upstreams, so that a name which nobody answers for delays no other one.

The law of this file. uvloop looks names up in two threads of libuv's for the whole process, and `sock_connect` there looks up
numeric addresses as well: while two lookups wait for a resolver that is silent, for five seconds and more, no connection can be
made at all, to a fallback neither. So names are looked up in threads of our own, of each name at most MOST_LOOKUPS at a time,
and numeric addresses in none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from typing import Any, Final

__all__ = ["Dialler"]

# Whoever wants a name that is being looked up waits for that lookup; where it has taken AGAIN_SECONDS, for a second one. The
# question or its answer may be lost, and the resolver asks again only after some seconds.
MOST_LOOKUPS: Final = 2
AGAIN_SECONDS: Final = 1.0

# (family, type, protocol, canonical name, address), as of socket.getaddrinfo
Addresses = list[tuple[Any, ...]]
Name = tuple[str, int]


class Dialler:
    """Makes connected sockets.

    receive_buffer_bytes   SO_RCVBUF of each, set before the connect, which negotiates the TCP window
    """

    def __init__(self, receive_buffer_bytes: int) -> None:
        self._receive_buffer_bytes = receive_buffer_bytes
        self._lookups: dict[Name, list[tuple[float, asyncio.Future[Addresses | OSError]]]] = {}

    async def dial(self, host: str, port: int) -> socket.socket:
        """A socket that is connected to the first of the host's addresses that accepts. Raises OSError."""
        problem: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in await self.addresses(host, port):
            sock = socket.socket(family, kind, protocol)
            with contextlib.ExitStack() as undo:
                undo.callback(sock.close)
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    await connect(sock, address)
                except OSError as error:
                    problem = error
                    continue
                undo.pop_all()
                return sock
        try:
            raise problem
        finally:
            # The error's traceback holds this frame, and the frame the error: a reference cycle with the request's body in it.
            del problem

    async def addresses(self, host: str, port: int) -> Addresses:
        """The addresses of a host, by name or as a number. Raises OSError."""
        with contextlib.suppress(socket.gaierror, UnicodeError):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        found = await asyncio.shield(self._lookup((host, port)))
        if isinstance(found, OSError):
            raise type(found)(*found.args)  # one of its own: an error that several raise collects the frames of all
        return found

    def _lookup(self, name: Name) -> asyncio.Future[Addresses | OSError]:
        loop = asyncio.get_running_loop()
        lookups = self._lookups.setdefault(name, [])
        if not lookups or (len(lookups) < MOST_LOOKUPS and loop.time() - lookups[-1][0] > AGAIN_SECONDS):
            found: asyncio.Future[Addresses | OSError] = loop.create_future()
            lookups.append((loop.time(), found))
            # A daemon: the process may end while the resolver is waited for.
            thread = threading.Thread(target=self._look_up, args=(name, loop, found), name="relay-lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the process may have no more threads
                self._looked_up(name, found, OSError(errno.EAGAIN, str(error)))
            return found
        return lookups[-1][1]

    def _look_up(self, name: Name, loop: asyncio.AbstractEventLoop, found: asyncio.Future[Addresses | OSError]) -> None:
        """In a thread."""
        result: Addresses | OSError
        try:
            result = socket.getaddrinfo(*name, type=socket.SOCK_STREAM)
        except OSError as error:
            result = error.with_traceback(None)
        except UnicodeError as error:  # of a name that cannot be one
            result = OSError(errno.EINVAL, str(error))
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._looked_up, name, found, result)

    def _looked_up(self, name: Name, found: asyncio.Future[Addresses | OSError], result: Addresses | OSError) -> None:
        lookups = [lookup for lookup in self._lookups.pop(name, ()) if lookup[1] is not found]
        if lookups:
            self._lookups[name] = lookups
        if not found.done():
            found.set_result(result)


async def connect(sock: socket.socket, address: Any) -> None:
    """Connect a non-blocking socket to an address without a name in it. Raises OSError."""
    code = sock.connect_ex(address)
    if code in (errno.EINPROGRESS, errno.EINTR):
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        loop.add_writer(sock, _wake, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
