"""One connection to an upstream: sends a request, returns the response's head, then its body.

The law of this file. Bytes are copied once: the loop reads them into one buffer that all connections share, httptools copies
the body's bytes out of it, and the caller gets that object. There are two ways to get the body: `read` waits for some of it,
and `flow` passes each piece to a function within the very callback in which it comes. Bytes that were not taken are bounded:
above the limit, or after `pause`, the socket is not read, so the upstream waits (backpressure). A connection owns no task, and
a timer only while it waits for a head.

After an error, or when its response was not read to its end, a connection is closed and never used again.
"""

from __future__ import annotations

import asyncio
import functools
import select
from typing import Final

from ...errors import UpstreamError, UpstreamTimeoutError, UpstreamUnreachableError
from ..body import OnEnd, OnPiece
from .answer import AnswerReader, Head

__all__ = ["UpstreamConnection"]

# The most that one recv takes. All connections share one buffer: its bytes are parsed before the loop reads the next socket.
MAX_READ_BYTES: Final = 256 * 1024
# A request's body is written in pieces as the upstream takes them, so that the transport never holds a copy of all of it.
PIECE_BYTES: Final = 64 * 1024

_buffer: Final = memoryview(bytearray(MAX_READ_BYTES))


@functools.lru_cache
def _first(nbytes: int) -> memoryview:
    """The first `nbytes` bytes of the shared receive buffer. All connections of one size get the same view object."""
    return _buffer[:nbytes]


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection. `request`, then `read` until it returns b"", then `request` again; `close` at any moment.

    read_bytes    the most that one recv takes while the body is read
    flow_bytes    the most that one recv takes while it flows
    limit_bytes   the socket is not read while more than this waits for `read`; one recv of read_bytes may come on top
    """

    __slots__ = (
        "_answer",
        "_error",
        "_expected",
        "_full",
        "_large",
        "_limit_bytes",
        "_loop",
        "_on_end",
        "_on_piece",
        "_overfull",
        "_paused",
        "_small",
        "_transport",
        "_unsent",
        "_used",
        "_waiter",
    )

    def __init__(self, read_bytes: int, flow_bytes: int, limit_bytes: int) -> None:
        self._small, self._large = _first(read_bytes), _first(flow_bytes)
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()  # kept: asking again may be a system call (getpid)
        self._transport: asyncio.Transport | None = None
        self._expected = False  # a response is under way
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._overfull = False  # paused by this connection itself, above limit_bytes, and not by `pause`
        self._full = False  # the transport's write buffer is above its high-water mark
        self._unsent: memoryview | None = None  # the rest of the request's body
        self._used = False  # for an earlier request
        self._error: UpstreamError | None = None
        self._on_piece: OnPiece | None = None
        self._on_end: OnEnd | None = None

    # Called by the pool, and by the body of a response

    @property
    def usable(self) -> bool:
        """Whether a request can be sent now.

        False where the socket has something that the loop has not read yet: the end of the connection, or bytes that answer no
        request, which the next caller would get for an answer.
        """
        if self._transport is None or self._transport.is_closing() or self._expected:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    @property
    def answered(self) -> bool:
        """Whether any byte of the response has come."""
        return self._answer.begun

    @property
    def reusable(self) -> bool:
        """Whether the response was read to its end, the request sent to its end, and another request may follow."""
        return (
            self._answer.reusable
            and self._unsent is None
            and self._error is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    @property
    def readable(self) -> bool:
        """Whether `read` returns at once."""
        return bool(self._answer.parts) or self._answer.complete

    @property
    def at_end(self) -> bool:
        """Whether `read` returned the whole body: it returns b"" at once."""
        return self._answer.complete and not self._answer.parts

    @property
    def waiting_bytes(self) -> int:
        """Body bytes that have come and were not read."""
        return self._answer.waiting_bytes

    async def request(self, head: bytes, body: bytes, seconds: float | None = None) -> Head:
        """Send a request, whose head ends with a blank line, and wait for the response's head.

        seconds   to wait at most; None: without a time-out

        Raises UpstreamTimeoutError, UpstreamUnreachableError, UpstreamProtocolError.
        """
        assert self._transport is not None, "not connected"
        self._answer.begin()
        self._expected = True
        if len(body) <= PIECE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._send_more()
        # A bare timer, which fails the waiter: a third of the cost of asyncio.timeout.
        timer = None if seconds is None else self._loop.call_later(seconds, self._overdue)
        try:
            while self._answer.head is None:
                await self._more()
        finally:
            if timer is not None:
                timer.cancel()
        return self._answer.take_head()

    async def read(self) -> bytes:
        """Wait for bytes of the body and return all that have come; b"" at its end.

        Raises UpstreamUnreachableError (broken off), UpstreamProtocolError.
        """
        while not self._answer.parts:
            if self._answer.complete:
                return b""
            await self._more()
        chunk = self._answer.take()
        self.resume()
        return chunk

    def flow(self, on_piece: OnPiece, on_end: OnEnd) -> None:
        """From now on call `on_piece` with each piece of the body as it comes, and `on_end` once: with the error, or None.

        Neither may raise. Bytes that have come already are passed to `on_piece` before this returns.
        """
        self._on_piece, self._on_end = on_piece, on_end
        if self._answer.parts:
            on_piece(self._answer.take())
        if self._answer.complete:
            self._end_flow(None)
        elif self._error is not None:
            self._end_flow(self._error)
        elif self._overfull:  # the bytes above the limit were just taken, and nobody called `pause`
            self.resume()

    def keep(self) -> None:
        """Stop the calls that `flow` began: bytes that come wait for `read` again."""
        self._on_piece = self._on_end = None

    def pause(self) -> None:
        """Stop reading the socket: the kernel's buffer fills, its window closes, and the upstream waits."""
        self._overfull = False
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        self._overfull = False
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def rest(self) -> None:
        """The response was read to its end: until the next request, bytes that come are a breach of the protocol."""
        self._expected = False
        self._used = True
        self.resume()  # only a socket that is read shows that the upstream closes it

    def close(self) -> None:
        """Close now, without waiting for unsent bytes. A call that waits here raises UpstreamUnreachableError."""
        self._expected = False
        self.keep()
        self._fail(UpstreamUnreachableError("the connection was closed"))
        self._answer.drop()
        self._unsent = None
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        """Wait until something has come. Raises the connection's error once all bytes that came before it were read."""
        if self._error is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._raise_unless_readable()

    def _raise_unless_readable(self) -> None:
        if self._error is not None and not self._answer.parts:
            # A new error, not the stored one: a raised error holds the frames that it went through, and these hold the
            # connection and the request, which would all wait for a garbage collection.
            raise type(self._error)(self._error.message)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self._end_flow(self._error)
        self._wake()

    def _overdue(self) -> None:
        if self._answer.head is None:  # else the head came in this turn of the loop, and `request` is about to run
            self._fail(UpstreamTimeoutError("the upstream did not answer in time"))

    def _end_flow(self, error: UpstreamError | None) -> None:
        on_end = self._on_end
        if on_end is not None:
            self.keep()
            on_end(error)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's has the methods, but not asyncio's class
        # Not before: the answer and its parser are a reference cycle that `connection_lost` breaks, and asyncio does not call
        # that where the TLS handshake fails.
        self._answer = AnswerReader()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._small if self._on_piece is None else self._large

    def buffer_updated(self, nbytes: int) -> None:
        if not self._expected:
            # Bytes that answer no request: the two sides disagree on the state of the connection, so it is closed.
            self.close()
            return
        if self._used and self._unsent is not None and not self.answered:
            # The upstream answers before it has the whole request. On a used connection that may be a second answer to the
            # request before, so it is not trusted; on a new connection an early answer can only be to this request.
            self._fail(UpstreamUnreachableError("the upstream answered before it was asked"))
            self.close()
            return
        answer = self._answer
        problem = answer.feed(_buffer[:nbytes])
        on_piece = self._on_piece
        if on_piece is not None and answer.parts:
            on_piece(answer.take())
        if problem is not None:
            self._fail(problem)
            self.close()
        elif on_piece is not None:
            if answer.complete:
                self._end_flow(None)
        else:
            if answer.waiting_bytes > self._limit_bytes and not self._paused:
                self.pause()
                self._overfull = True
            if answer.parts or answer.complete or answer.head is not None:
                self._wake()

    def _send_more(self) -> None:
        """Give the transport as much of the request's body as it has room for."""
        while self._unsent is not None and not self._full and self._transport is not None:
            piece, rest = self._unsent[:PIECE_BYTES], self._unsent[PIECE_BYTES:]
            self._unsent = rest or None
            self._transport.write(piece)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._send_more()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._unsent = None
        self._answer.close()
        if self._answer.until_close and exc is None:
            self._answer.complete = True
            self._end_flow(None)
            self._wake()
        elif self._expected and not self._answer.complete:
            self._fail(UpstreamUnreachableError("the upstream broke the connection off"))
        else:
            self._wake()
