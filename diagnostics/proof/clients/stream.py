"""One stream of one client: a connection, a request, and what comes back, counted and forgotten.

Every load has this client: `load.run_load` runs some in this process, `fleet` many in several processes.

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
import sys
from typing import Any

import httptools

from .address import Address, RequestMessage
from .eventscan import EventCount
from .kept import Connection, Kept
from .mix import Behavior
from .tally import StreamOutcome, Tally

__all__ = ["StreamTarget", "run_stream"]

_CONNECT_SECONDS = 10.0
# How often a slow client reads whose behavior does not say how much at once, and the most by which it may fall behind its pace.
_STEP_SECONDS = 0.1
_MOST_STEP_BYTES = 64 * 1024
# A read is sampled if it is the stream's first, and then one of so many.
_SAMPLE_EVERY = 128
# Longer than a last event `data: [DONE]` with its blank line, however it is cut.
_TAIL_BYTES = 32
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\][\r\n]+\Z")


class StreamTarget:
    """Where streams go and what they ask, looked up and encoded once for all. Raises TargetError where the host is not known.

    A stream that sends nothing for `patience_seconds` has failed; None: it may be silent for as long as it likes. Without
    `keep_alive` each request asks the service to close its connection after the answer.
    """

    def __init__(
        self,
        address: Address,
        message: RequestMessage,
        *,
        verify_tls: bool = True,
        patience_seconds: float | None = None,
        keep_alive: bool = False,
    ) -> None:
        family, kind, protocol, _, self.sockaddr = address.resolve()[0]
        self.socket_arguments = (family, kind, protocol)
        self.payload = message.encode(address) if keep_alive else message.encode(address, connection="close")
        self.name = address.host if address.tls else None
        self.context = address.tls_context(verify=verify_tls)
        self.patience_seconds = patience_seconds


async def run_stream(
    target: StreamTarget,
    behavior: Behavior,
    tally: Tally,
    intended: float | None = None,
    kept: Kept | None = None,
) -> StreamOutcome:
    """One stream from connect to close, counted in `tally`; how it ended.

    `intended` is when it was meant to begin, in the loop's time; None: now. `kept` is the client's: the stream goes over the
    connection that it holds, and leaves its own there where another answer can follow on it. A client that reads slowly
    has a connection of its own, since its receive buffer is told to the service while connecting.
    """
    tally.streams += 1
    intended = asyncio.get_running_loop().time() if intended is None else intended
    if behavior.bytes_per_second is not None or behavior.receive_buffer_bytes is not None:
        kept = None
    connection = await kept.take() if kept is not None else None
    if connection is not None:
        again = _Reading(target, behavior, intended, tally, reused=True)
        await _ask(again, target, connection, kept)
        if not again.stale:
            return again.ended.result()
    stream = (_Reading if behavior.bytes_per_second is None else _Pacing)(target, behavior, intended, tally)
    await _connect_and_ask(stream, target, kept)
    return stream.ended.result()


async def _connect_and_ask(stream: _Reading | _Pacing, target: StreamTarget, kept: Kept | None) -> None:
    loop = asyncio.get_running_loop()
    sock = socket.socket(*target.socket_arguments)
    connection = None
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if stream.behavior.receive_buffer_bytes is not None:
            # Before connecting: later, the window is announced already, and the kernel takes megabytes in the client's place.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, stream.behavior.receive_buffer_bytes)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await loop.sock_connect(sock, target.sockaddr)
            stream.connected()
            transport, _ = await loop.create_connection(
                lambda: stream, sock=sock, ssl=target.context, server_hostname=target.name
            )
        connection = Connection(sock, transport)
    except asyncio.CancelledError:
        stream.end(StreamOutcome.TIME_UP)
        raise
    except ssl.SSLError:
        stream.end(StreamOutcome.FAILED, "tls")
    except OSError:  # the time-out is one, too
        stream.end(StreamOutcome.FAILED, "connect")
    finally:
        if connection is None:
            await stream.closed()
            sock.close()
    if connection is not None:
        await _ask(stream, target, connection, kept)


async def _ask(stream: _Reading | _Pacing, target: StreamTarget, connection: Connection, kept: Kept | None) -> None:
    """Send the request, and wait for the stream's end. Closes the connection, unless `kept` has it then."""
    held = False
    try:
        if stream.reused:
            connection.transport.set_protocol(stream)
            stream.connection_made(connection.transport)
        connection.transport.write(target.payload)
        await stream.ended
        if kept is not None and stream.reusable and not connection.transport.is_closing():
            kept.keep(connection)
            held = True
    except asyncio.CancelledError:
        stream.end(StreamOutcome.TIME_UP)
        raise
    finally:
        if not held:
            if stream.behavior.resets and stream.outcome is StreamOutcome.LEFT:
                # Closing with a linger time of nothing throws away what is unsent and resets: socket(7), SO_LINGER.
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.closed()
            connection.sock.close()


class _Stream(asyncio.BaseProtocol):
    """What one stream's bytes mean, and how it ends. How they are read is left to the two classes below."""

    def __init__(
        self, target: StreamTarget, behavior: Behavior, intended: float, tally: Tally, *, reused: bool = False
    ) -> None:
        self.behavior = behavior
        self.reused = reused  # goes over a connection that has carried another stream
        self.stale = (
            False  # that connection had been closed: nothing of this stream is counted, and it is asked for again
        )
        self.reusable = False  # another answer can follow on this connection
        self._patience_seconds = target.patience_seconds
        self._after_events = sys.maxsize if behavior.after_events is None else behavior.after_events
        self._intended = intended
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._count = EventCount()
        self._transport: Any = None
        self._lost: asyncio.Future[None] | None = None
        self._leave: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._heard = 0.0  # when bytes came last
        self._heard_any = False
        self._last_event: float | None = None
        self._reads = 0
        self._tail = b""
        self._framed = False  # the body's end is told by a length or a last chunk, not by the end of the connection
        self._status = 0
        self.outcome: StreamOutcome | None = None
        self.ended: asyncio.Future[StreamOutcome] = self._loop.create_future()

    def connected(self) -> None:
        """A connection was opened for this stream."""
        self._tally.connections += 1
        self._tally.connect.add(self._loop.time() - self._intended)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._lost = self._loop.create_future()
        self._heard = self._loop.time()
        if self.behavior.after_seconds is not None:
            self._leave = self._loop.call_later(self.behavior.after_seconds, self.end, StreamOutcome.LEFT)
        if not self.behavior.reads:
            self._transport.pause_reading()
        elif self._patience_seconds is not None:
            self._silence = self._loop.call_later(self._patience_seconds, self._still_there, self._patience_seconds)

    def data_received(self, data: bytes) -> None:
        if self.outcome is not None:
            return
        self._heard = self._loop.time()
        self._heard_any = True
        self._tally.bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.end(StreamOutcome.FAILED, "malformed")

    def connection_lost(self, error: Exception | None) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        if self.reused and not self._heard_any and self.outcome is None:
            self.stale = True
            self._stop(StreamOutcome.FAILED)
        elif error is not None:
            self.end(StreamOutcome.FAILED, "reset")
        elif self._status and not self._framed:
            self._completed()
        else:
            self.end(StreamOutcome.FAILED, "cut_off")

    def end(self, outcome: StreamOutcome, error: str | None = None) -> None:
        """The stream's outcome; only the first one counts."""
        if self.outcome is not None:
            return
        self._tally.outcomes[outcome] += 1
        if error is not None:
            self._tally.errors[error] += 1
        self._stop(outcome)

    def _stop(self, outcome: StreamOutcome) -> None:
        self.outcome = outcome
        for timer in (self._leave, self._silence, self._pause):
            if timer is not None:
                timer.cancel()
        if not self.ended.done():  # who waits for it may have been cancelled
            self.ended.set_result(outcome)

    async def closed(self) -> None:
        """Close the connection and wait until the loop has let go of the socket."""
        if self._transport is not None and self._lost is not None:
            self._transport.abort()
            await self._lost

    def _still_there(self, patience_seconds: float) -> None:
        left = self._heard + patience_seconds - self._loop.time()
        if left <= 0:
            self.end(StreamOutcome.FAILED, "silent")
        else:
            self._silence = self._loop.call_later(left, self._still_there, patience_seconds)

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
            self.end(StreamOutcome.refused(self._status), f"status_{self._status}")

    def on_body(self, body: bytes) -> None:
        if self.outcome is not None:
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
            if self._count.events >= self._after_events:
                self.end(StreamOutcome.LEFT)

    def on_message_complete(self) -> None:
        self.reusable = self.outcome is None and self._framed and self._parser.should_keep_alive()
        self._completed()

    def _completed(self) -> None:
        if self.outcome is None and _DONE.search(self._tail):
            self._tally.done_seen += 1
        self.end(StreamOutcome.COMPLETED)

    def _time(self, new: int) -> None:
        if self.behavior.bytes_per_second is not None:  # what it waits for is itself
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


class _Reading(_Stream, asyncio.Protocol):
    """Reads whatever comes."""


class _Pacing(_Stream, asyncio.BufferedProtocol):
    """Reads at its pace, a small step at once: after one read of all that has come it would be silent for long."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._rate = self.behavior.bytes_per_second or 1
        step_bytes = self.behavior.step_bytes or max(1, int(self._rate * _STEP_SECONDS))
        # A view, because asyncio's TLS reads into slices of it, and a slice of a bytearray is a copy.
        self._buffer = memoryview(bytearray(min(_MOST_STEP_BYTES, step_bytes)))
        self._due = self._heard

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))
        now = self._loop.time()
        # By what was read, not by how often: a short read earns a short pause.
        self._due = max(self._due, now - _STEP_SECONDS) + nbytes / self._rate
        if self.outcome is None and self._due > now:
            self._transport.pause_reading()
            self._pause = self._loop.call_later(self._due - now, self._transport.resume_reading)
