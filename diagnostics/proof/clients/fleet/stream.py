"""One stream of one client: a connection, a request, and what comes back, counted and forgotten.

A protocol and not a reader: at a hundred thousand events a second, what counts is how little is done for each read. Events are
found as blank lines in the bytes; of one in some hundred reads one event is parsed, to see that it is JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from typing import Any

import httptools

from ..load import EventCount
from .order import Habit, Order
from .tally import Tally

__all__ = ["Target", "run_stream"]

_CONNECT_SECONDS = 10.0
# Set before connecting: later, the window is announced already, and the kernel would take megabytes in the client's place.
_SLOW_RECEIVE_BUFFER = 4096
# A read is sampled if it is the stream's first, and then one of so many.
_SAMPLE_EVERY = 128
# Longer than a last event `data: [DONE]` with its blank line, however it is cut.
_TAIL_BYTES = 32
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\][\r\n]+\Z")


class Target:
    """Where a fleet's streams go: looked up once, for all of them. Raises OSError where the name is not known."""

    def __init__(self, order: Order) -> None:
        address = order.address
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, sockaddr = found[0]
        self.sockaddr: Any = sockaddr
        self.socket_arguments = (family, kind, protocol)
        self.payload = order.message.encode(address, connection="close")
        self.name = address.host if address.tls else None
        self.context: ssl.SSLContext | None = None
        if address.tls:
            self.context = ssl.create_default_context()
            if not order.verify_tls:
                self.context.check_hostname = False
                self.context.verify_mode = ssl.CERT_NONE


async def run_stream(order: Order, target: Target, habit: Habit, intended: float, tally: Tally) -> None:
    """One stream from connect to close, counted in `tally`. `intended` is when it was meant to begin, in the loop's time."""
    loop = asyncio.get_running_loop()
    tally.streams += 1
    stream = _Stream(order, habit, intended, tally)
    with socket.socket(*target.socket_arguments) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if habit in (Habit.SLOW, Habit.NEVER):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_RECEIVE_BUFFER)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(sock, target.sockaddr)
                tally.connect.add(loop.time() - intended)
                transport, _ = await loop.create_connection(
                    lambda: stream, sock=sock, ssl=target.context, server_hostname=target.name
                )
            transport.write(target.payload)
            await stream.ended
        except asyncio.CancelledError:
            stream.end("time_up")
            raise
        except ssl.SSLError:
            stream.end("failed", "tls")
        except OSError:  # the time-out is one, too
            stream.end("failed", "connect")
        finally:
            if stream.broken:
                # Closing with a linger time of nothing throws away what is unsent and resets: socket(7), SO_LINGER.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.closed()


class _Stream(asyncio.Protocol):
    def __init__(self, order: Order, habit: Habit, intended: float, tally: Tally) -> None:
        self._order = order
        self._habit = habit
        self._intended = intended
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._count = EventCount()
        self._transport: Any = None
        self._lost: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._heard = 0.0  # when bytes came last
        self._last_event: float | None = None
        self._reads = 0
        self._tail = b""
        self._framed = False  # the body's end is told by a length or a last chunk, not by the end of the connection
        self._status = 0
        self._outcome: str | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    @property
    def broken(self) -> bool:
        """Whether the connection is to be reset, not closed."""
        return self._habit is Habit.RESET and self._outcome == "left"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._lost = self._loop.create_future()
        self._heard = self._loop.time()
        if self._habit is Habit.NEVER:
            self._transport.pause_reading()
            self._timer = self._loop.call_later(self._order.hold_seconds, self.end, "left")
        else:
            self._timer = self._loop.call_later(self._order.patience_seconds, self._still_there)

    def data_received(self, data: bytes) -> None:
        if self._outcome is not None:
            return
        self._heard = self._loop.time()
        self._tally.bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.end("failed", "malformed")
            return
        if self._habit is Habit.SLOW and self._outcome is None:
            self._transport.pause_reading()
            self._pause = self._loop.call_later(
                len(data) / self._order.slow_bytes_per_second, self._transport.resume_reading
            )

    def connection_lost(self, error: Exception | None) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        if error is not None:
            self.end("failed", "reset")
        elif self._status and not self._framed:
            self._completed()
        else:
            self.end("failed", "cut_off")

    def end(self, outcome: str, error: str | None = None) -> None:
        """The stream's outcome; only the first one counts."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        self._tally.outcomes[outcome] += 1
        if error is not None:
            self._tally.errors[error] += 1
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    async def closed(self) -> None:
        """Close the connection and wait until the loop has let go of the socket."""
        if self._transport is not None and self._lost is not None:
            self._transport.abort()
            await self._lost

    def _still_there(self) -> None:
        left = self._heard + self._order.patience_seconds - self._loop.time()
        if left <= 0:
            self.end("failed", "silent")
        else:
            self._timer = self._loop.call_later(left, self._still_there)

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name == b"content-type":
            self._tally.content_types[value.partition(b";")[0].strip().lower().decode("latin-1")] += 1

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if not 200 <= self._status < 300:
            self.end("failed", f"status_{self._status}")

    def on_body(self, body: bytes) -> None:
        if self._outcome is not None:
            return
        if self._reads % _SAMPLE_EVERY == 0:
            self._sample(body, whole=self._count.between_events)
        self._reads += 1
        before = self._count.events
        self._count.feed(body)
        self._tail = body[-_TAIL_BYTES:] if len(body) >= _TAIL_BYTES else (self._tail + body)[-_TAIL_BYTES:]
        if new := self._count.events - before:
            self._tally.events += new
            self._time(new)
            leaves = self._habit in (Habit.LEAVE, Habit.RESET)
            if leaves and self._count.events >= self._order.after_events:
                self.end("left")

    def on_message_complete(self) -> None:
        self._completed()

    def _completed(self) -> None:
        if self._outcome is None and _DONE.search(self._tail):
            self._tally.done_seen += 1
        self.end("completed")

    def _time(self, new: int) -> None:
        if self._habit is Habit.SLOW:  # what it waits for is itself
            return
        if self._last_event is None:
            self._tally.first_event.add(self._heard - self._intended)
        else:
            self._tally.gaps.add(self._heard - self._last_event)
        if new > 1:
            self._tally.gaps.add(0.0, new - 1)
        self._last_event = self._heard

    def _sample(self, body: bytes, *, whole: bool) -> None:
        """Parse the first event that is wholly in `body`; `whole`: it begins with one."""
        start = 0
        if not whole:
            blank = _BLANK_LINE.search(body)
            if blank is None:
                return
            start = blank.end()
        end = _BLANK_LINE.search(body, start)
        if end is None:
            return
        lines = body[start : end.start()].splitlines()
        data = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        if not data or data == b"[DONE]":
            return
        self._tally.sampled += 1
        try:
            json.loads(data)
        except ValueError:
            self._tally.not_json += 1
