"""uvicorn's HTTP connection, extended: its write buffer is bounded, and a stream uses the connection directly.

uvicorn takes the class of its HTTP protocol as a setting, so this needs no patch. The connection puts itself into the scope of
each of its requests (client.py). A stream uses it for what ASGI has no messages for: write a chunk of the body to the
transport without a task and without a `send` through every middleware; learn at once that the client is slow, takes bytes
again, or is gone; ask how many bytes the client has not acknowledged; reset the connection. The response's head and its end
go through ASGI's `send`.

This is the only file that uses private names of uvicorn. uvicorn_names.py lists them, and compares them with the uvicorn that
is installed; where one is missing, the relay serves by ASGI alone (plain.py).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .bounds import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, ConnectionBounds
from .client import EXTENSION, Client, Listener
from .uvicorn_names import check

__all__ = ["ClientConnection", "bounded_protocol"]

_AT_ONCE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s

# A chunk up to this size is copied into one piece with its framing, which is cheaper than a write of three pieces.
COPIED_BYTES: Final = 4096
# The longest wait for the event loop to notice that a connection was aborted.
GONE_SECONDS: Final = 1.0


class _Flow(FlowControl):
    """uvicorn's FlowControl with a future made on demand: most connections never drain, and an asyncio.Event is 750 bytes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._room: asyncio.Future[None] | None = None

    async def drain(self) -> None:
        if self.write_paused:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)


class _Pipeline(list[Any]):
    """Pipelined requests, which wait for the present one's end. They are rare, and an empty deque is 760 bytes."""

    def appendleft(self, request: Any) -> None:
        self.insert(0, request)


class _Nobody:
    """Takes the place of the asyncio.Event (750 bytes) that wakes an app's `receive`, which a stream does not call."""

    def set(self) -> None:
        pass

    def clear(self) -> None:
        pass

    async def wait(self) -> None:
        raise RuntimeError("a stream's client has said all that it has to say")


_NOBODY: Final[Any] = _Nobody()


class ClientConnection(HttpToolsProtocol):
    """One client's connection: the `Client` of its requests, and `Watched` by their bounds. Made by `bounded_protocol`."""

    # Slots, since beyond 30 attributes an instance's dictionary no longer shares its keys with the class: half a kilobyte.
    __slots__ = ("_charged_bytes", "_gone", "_head_bytes", "_in_body", "_listener", "_running", "_unsent_bytes", "lost")

    high_water_bytes = 64 * 1024
    bounds: ConnectionBounds

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pipeline = _Pipeline()  # type: ignore[assignment]  # it has the methods of a deque that uvicorn calls
        self._listener: Listener | None = None
        self._gone: asyncio.Future[None] | None = None
        # The request that is answered now. uvicorn's `cycle` is the latest that has come, which may wait in the pipeline.
        self._running: RequestResponseCycle | None = None
        self._head_bytes = 0  # of an incomplete head
        self._charged_bytes = 0  # those of them that are charged to the process's budget
        self._in_body = False
        self._unsent_bytes = 0  # unacknowledged at the last `give_up_unsent`
        self.lost = False

    # Called by a stream (client.Client)

    def listen(self, listener: Listener | None) -> None:
        self._listener = listener
        if listener is None:
            return
        if self.lost:  # before the stream was ready to listen; there is no `cycle` any more
            listener.lost()
        elif not self.pipeline:  # else `cycle` is that of a pipelined request
            self.cycle.message_event = _NOBODY

    def writer(self, hold: Callable[[int], None]) -> Callable[[bytes], None]:
        return self._write_body  # nothing to `hold`: all bytes go to the transport's write buffer

    def _write_body(self, body: bytes) -> None:
        """Write one piece of the body in chunked transfer coding (RFC 9112, 7.1): the response has no Content-Length."""
        if self.lost:
            return
        size = len(body)
        if size <= COPIED_BYTES:
            self.transport.write(b"%x\r\n%b\r\n" % (size, body))
        else:
            self.transport.writelines((b"%x\r\n" % size, body, b"\r\n"))

    @property
    def whole_body_arrived(self) -> bool:
        """Whether the request's whole body has arrived. False where a pipelined request is behind it."""
        return not self.pipeline and not self.cycle.more_body

    @property
    def full(self) -> bool:
        return self.flow.write_paused

    async def room(self) -> None:
        await self.flow.drain()

    def unsent(self) -> int | None:
        if not self.flow.write_paused and not self.transport.get_write_buffer_size():
            return None
        return 0 if self.transport.is_closing() else self._unacknowledged()

    def _unacknowledged(self) -> int:
        """Bytes that the client has not acknowledged: in the transport's write buffer and the kernel's (SIOCOUTQ, tcp(7))."""
        transport = self.transport
        in_kernel = array.array("i", [0])
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return transport.get_write_buffer_size() + in_kernel[0]

    def abort(self) -> None:
        """Reset the connection and drop all unsent bytes.

        Without SO_LINGER the kernel would keep the unsent bytes, and try to send them, for minutes.
        """
        if not self.lost:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.transport.abort()
            # Not only once the event loop says so: where it is late, the response's task ends first, and uvicorn logs an error.
            self._leave_running()

    async def gone(self) -> None:
        if not self.lost:
            self._gone = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone, GONE_SECONDS)

    # Called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.flow = _Flow(transport)
        transport.set_write_buffer_limits(high=self.high_water_bytes, low=self.high_water_bytes // 4)
        if self.bounds.most and len(self.connections) > self.bounds.most:
            self.bounds.reject("connections")
            self.abort()
        else:
            self.bounds.heads.began(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_running()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn keeps a connection that was reset for as long as an idle one
        self.lost = True
        self.bounds.forget(self)
        self._head_is_over()
        self.pipeline.clear()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        if self._listener is not None:
            self._listener.lost()
        # The scope refers to this connection: without a break in the cycle only the garbage collector would free both.
        self._running = None
        self.scope = self.cycle = None  # type: ignore[assignment]  # their values before the first request

    def _leave_running(self) -> None:
        """Tell the request that is answered now that its client is gone; uvicorn tells the latest that has come."""
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._listener is not None:
            self._listener.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._listener is not None:
            self._listener.resumed()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head_bytes += len(data)
            if self._idle:  # else a response is under way, and uvicorn's keep-alive timer starts at its end
                self.bounds.heads.began(self)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the relay upgrades to no protocol: the request is answered as if it had no Upgrade header (RFC 9110, 7.8)
        except httptools.HttpParserError as error:
            self._parsed_badly(error)
        else:
            if self._in_body:
                self.bounds.bodies.began(self)
            elif self._head_bytes and not self.lost:
                self._keep_head()

    def _keep_head(self) -> None:
        """Part of a head has come: charge it to the process's budget, or refuse it where it is too large or finds no room."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large", "head_too_large")
        elif self.bounds.budget.grow_head(self._head_bytes - self._charged_bytes):
            self._charged_bytes = self._head_bytes
        else:
            self._refuse(b"503 Service Unavailable", "head_bytes")

    def _parsed_badly(self, error: httptools.HttpParserError) -> None:
        if self.transport.is_closing():
            return  # refused already, in a callback of the parser
        # The parser's messages are fixed texts: none quotes the client.
        self._refuse(b"400 Bad Request", "head_malformed", str(error))

    def give_up_head(self) -> None:
        """Close the connection, whose head is overdue; with a 408 if some of the head has come."""
        self._close_with(b"408 Request Timeout" if self._head_bytes else b"")

    def give_up_body(self) -> bool:
        """Reset the connection, whose request body is overdue; False where the request waits behind another one."""
        if self.pipeline:
            return False
        self.abort()
        return True

    def give_up_unsent(self) -> bool:
        """Reset the connection if the client took no byte since the last call; False where some are left to take."""
        if self.lost:
            return True
        unsent_before, self._unsent_bytes = self._unsent_bytes, self._unacknowledged()
        if self._unsent_bytes and self._unsent_bytes == unsent_before:
            self.bounds.reject("answer_not_taken")
            self.abort()
            return True
        return not self._unsent_bytes

    @property
    def _idle(self) -> bool:
        """Whether no response is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, status: bytes, reason: str, cause: str = "") -> None:
        """Answer with this status where no response is under way, close the connection, and report the refusal."""
        self.bounds.heads.over(self)
        self.bounds.reject(reason, cause)
        self._close_with(status)

    def _close_with(self, status: bytes) -> None:
        if status and self._idle:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
            self._taken_by_and_by()
        elif self._idle:
            self.transport.close()
        else:
            self.abort()

    def _taken_by_and_by(self) -> None:
        """A response is complete: start the time-out for the client to take the bytes of it that still wait."""
        if not self.lost and self.transport.get_write_buffer_size():
            self._unsent_bytes = 0
            self.bounds.unsent.began(self)

    def _head_is_over(self) -> None:
        if self._charged_bytes:
            self.bounds.budget.release_head(self._charged_bytes)
            self._charged_bytes = 0

    # Called by the HTTP parser

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self.bounds.reject("pipelined")
            self.abort()
            raise _RefusedError
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer: none are kept
        if len(self.headers) >= MAX_HEADERS:
            self._refuse(b"431 Request Header Fields Too Large", "head_too_large")
            raise _RefusedError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._in_body = True
        self._head_is_over()
        self.bounds.heads.over(self)
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle

    def on_message_complete(self) -> None:
        self._in_body = False
        self.bounds.bodies.over(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()
        self._taken_by_and_by()


class _RefusedError(Exception):
    """Raised in a callback of the parser to stop it: the connection is refused."""


def bounded_protocol(high_water_bytes: int, bounds: ConnectionBounds) -> type[ClientConnection]:
    """A subclass of ClientConnection for uvicorn's setting `http`. Raises MovedError where the installed uvicorn lacks a name.

    high_water_bytes   the high-water mark of the transport's write buffer (asyncio's default: 64 KiB)
    bounds             the connections' other bounds and their deadlines
    """
    check()
    return type(
        "BoundedConnection",
        (ClientConnection,),
        {"__slots__": (), "high_water_bytes": high_water_bytes, "bounds": bounds},
    )


if TYPE_CHECKING:
    _is_one: type[Client] = ClientConnection  # mypy checks that no method is missing
