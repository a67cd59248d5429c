"""One connection to an upstream: a request goes out, a head comes back, and the body's bytes are read as they come.

The law of this file. Bytes are touched once: the loop reads them into one buffer that all connections share, httptools copies
out what belongs to the body, and whoever wants the body takes that object. There are two ways to want it: `read` waits for
some of it, and `flow` has it handed over as it comes, within the very callback. What has come and was not taken is bounded:
above the limit, or when told to `pause`, the socket is not read, so the upstream waits. No task and no timer belongs to a
connection.

A connection that anything went wrong on, or whose response was not read to its end, is closed and never used again.
"""

from __future__ import annotations

import asyncio
import functools
import select
from collections.abc import Sequence
from typing import Final

from ...errors import UpstreamError, UpstreamTimeoutError, UpstreamUnreachableError
from ..body import Ended, Took
from .answer import Answer, Head

__all__ = ["Connection"]

# The most that one recv takes. All connections share one buffer: what it holds is parsed before anybody else reads.
MAX_READ_BYTES: Final = 256 * 1024
# A request's body goes out in pieces as the upstream takes them, so that the transport holds no copy of it.
PIECE_BYTES: Final = 64 * 1024

_buffer: Final = memoryview(bytearray(MAX_READ_BYTES))


@functools.lru_cache
def _first(nbytes: int) -> memoryview:
    """The first `nbytes` bytes of the shared receive buffer. All connections of one size get the same view object."""
    return _buffer[:nbytes]


class Connection(asyncio.BufferedProtocol):
    """One connection. `request`, then `read` until it returns b"", then `request` again; `close` at any moment.

    read_bytes    one recv while the body is read
    flow_bytes    one recv while it flows
    limit_bytes   above this the socket is not read: limit_bytes and one recv of read_bytes may wait here
    """

    __slots__ = (
        "_answer",
        "_ended",
        "_error",
        "_expected",
        "_full",
        "_large",
        "_limit_bytes",
        "_loop",
        "_overfull",
        "_paused",
        "_small",
        "_took",
        "_transport",
        "_unsent",
        "_used",
        "_waiter",
    )

    def __init__(self, read_bytes: int, flow_bytes: int, limit_bytes: int) -> None:
        self._small, self._large = _first(read_bytes), _first(flow_bytes)
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()  # asking for it once a read would be a system call once a read
        self._transport: asyncio.Transport | None = None
        self._expected = False  # a response is under way
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._overfull = False  # paused by this connection itself, and by nobody who gives it away
        self._full = False  # the transport asks to wait
        self._unsent: memoryview | None = None  # of the request's body
        self._used = False  # for a request before this one
        self._error: UpstreamError | None = None
        self._took: Took | None = None
        self._ended: Ended | None = None

    # What its user calls

    @property
    def usable(self) -> bool:
        """Whether a request can be sent now.

        Not where something has come that the loop has not read yet: the end of the connection, or a response that nobody asked
        for, which the next caller would get for an answer.
        """
        if self._transport is None or self._transport.is_closing() or self._expected:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    @property
    def answered(self) -> bool:
        """Whether anything of a response has come."""
        return self._answer.begun

    @property
    def reusable(self) -> bool:
        """Whether the response was read to its end and another request may follow."""
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
    def waiting_bytes(self) -> int:
        """Body bytes that have come and were not read."""
        return self._answer.waiting_bytes

    async def request(
        self,
        method: str,
        target: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        seconds: float | None = None,
    ) -> Head:
        """Send a request and wait so long for the response's head.

        Raises UpstreamTimeoutError, UpstreamUnreachableError, UpstreamProtocolError.
        """
        assert self._transport is not None, "not connected"
        self._answer.begin()
        self._expected = True
        lines = [method.encode(), b" ", target, b" HTTP/1.1\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        if len(body) <= PIECE_BYTES:
            self._transport.write(b"".join((*lines, body)))
        else:
            self._transport.write(b"".join(lines))
            self._unsent = memoryview(body)
            self._send_more()
        # A bare timer: a third of what a context that cancels this task costs, and there is a waiter to tell.
        timer = None if seconds is None else self._loop.call_later(seconds, self._overdue)
        try:
            while self._answer.head is None:
                await self._more()
        finally:
            if timer is not None:
                timer.cancel()
        return self._answer.take_head()

    async def read(self) -> bytes:
        """What has come of the body, waiting for something to come; b"" at its end.

        Raises UpstreamUnreachableError (broken off), UpstreamProtocolError.
        """
        while not self._answer.parts:
            if self._answer.complete:
                return b""
            await self._more()
        chunk = self._answer.take()
        self.resume()
        return chunk

    def flow(self, took: Took, ended: Ended) -> None:
        """Hand the body over from now on: each piece as it comes to `took`, and to `ended` its end or what went wrong, once.

        Neither may raise. What has come already is handed over before this returns.
        """
        self._took, self._ended = took, ended
        if self._answer.parts:
            took(self._answer.take())
        if self._answer.complete:
            self._end_flow(None)
        elif self._error is not None:
            self._end_flow(self._error)
        elif self._overfull:  # nothing waits any more, and whoever takes it now did not ask for a pause
            self.resume()

    def keep(self) -> None:
        """Hand nothing over any more: what comes waits for `read` again."""
        self._took = self._ended = None

    def pause(self) -> None:
        """Stop reading the socket; its buffer fills, and the upstream waits."""
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
        """The response is done with; whatever comes before the next request was not asked for."""
        self._expected = False
        self._used = True
        self.resume()  # or nobody would see the upstream close it

    def close(self) -> None:
        """Close now, without waiting for what is unsent. Whoever waits here is told."""
        self._expected = False
        self.keep()
        self._fail(UpstreamUnreachableError("the connection was closed"))
        self._answer.drop()
        self._unsent = None
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        """Wait until something has come. Raises what went wrong, once everything that came before it was read."""
        if self._error is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._raise_unless_readable()

    def _raise_unless_readable(self) -> None:
        if self._error is not None and not self._answer.parts:
            # Not the one that is kept: what was raised holds the frames that it went through, a request in them, and
            # these hold the connection. All of it would wait for the garbage collector.
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
        if self._answer.head is None:  # else it has come in the same turn of the loop, and is about to be seen
            self._fail(UpstreamTimeoutError("the upstream did not answer in time"))

    def _end_flow(self, error: UpstreamError | None) -> None:
        ended = self._ended
        if ended is not None:
            self.keep()
            ended(error)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but its class
        # Not before: it and its parser hold each other until the connection is lost, and one whose handshake fails never is.
        self._answer = Answer()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._small if self._took is None else self._large

    def buffer_updated(self, nbytes: int) -> None:
        if not self._expected:
            # Bytes that nobody asked for: the two sides disagree on what was said, so nothing more is.
            self.close()
            return
        if self._used and self._unsent is not None and not self.answered:
            # An answer to what the upstream does not have yet: it belongs to the request before, whose answer was two. On a new
            # connection an early answer is one.
            self._fail(UpstreamUnreachableError("the upstream answered before it was asked"))
            self.close()
            return
        answer = self._answer
        problem = answer.feed(_buffer[:nbytes])
        took = self._took
        if took is not None and answer.parts:
            took(answer.take())
        if problem is not None:
            self._fail(problem)
            self.close()
        elif took is not None:
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
