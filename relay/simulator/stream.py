"""One streamed answer: sends events at the requested pace until its end, its fault, or the client's disconnect.

A stream never has more than one timer, writes several events at once where several are due, and sends nothing while the
transport is full; events that became due meanwhile follow in batches, as from an upstream that generates at its own pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .events import MALFORMED, Events
from .grammar import Script
from .stats import Stats

__all__ = ["AnswerStream"]

# About the most bytes of one write, unless one event is larger: enough that the cost of the call is small beside that of the
# bytes, and no more than the transport's high-water mark, so that a slow client is noticed after one write.
_BATCH_BYTES = 64 * 1024


class AnswerStream:
    """Sends from `start()` on, until it calls `ended(keep_alive)`, or until `stop()` when the client has left.

    `head` is the response's status line and headers, sent with the first event. With `chunked` False (HTTP/1.0) the
    body ends with the connection. `paused`: whether the transport is full at the start.
    """

    __slots__ = (
        "_at_fault",
        "_chunked",
        "_ended",
        "_epoch",
        "_events",
        "_head",
        "_loop",
        "_mode",
        "_paused",
        "_position",
        "_script",
        "_stats",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        head: bytes,
        events: Events,
        script: Script,
        stats: Stats,
        *,
        chunked: bool,
        paused: bool,
        ended: Callable[[bool], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._head = head
        self._events = events
        self._script = script
        self._stats = stats
        self._chunked = chunked
        self._paused = paused
        self._ended = ended
        self._position = 0  # events sent
        self._epoch = 0.0  # when the first event was sent, in the loop's time
        self._mode = "events"  # or "endless" or "stalled", from the fault on
        self._timer: asyncio.Handle | None = None
        fault = script.fault
        self._at_fault = fault.at if fault is not None and fault.status is None else None

    def start(self) -> None:
        """Start the timer for the first event."""
        self._stats.stream_started()
        self._timer = self._loop.call_later(self._script.first, self._begin)

    def pause(self) -> None:
        """The transport is full: write no more."""
        self._paused = True

    def resume(self) -> None:
        """The transport has room again."""
        self._paused = False
        if self._timer is None and self._epoch and self._mode != "stalled":
            self._timer = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        """The client has left: stop sending."""
        if self._timer is not None:
            self._timer.cancel()
        self._stats.stream_ended("disconnected")

    def _begin(self) -> None:
        self._epoch = self._loop.time()
        self._tick()

    def _tick(self) -> None:
        self._timer = None
        if self._paused:
            return  # until resume()
        if self._mode == "endless":
            self._write(b"x" * self._script.size)
            self._wait()
            return
        due = self._due()
        if self._position < due:
            data = self._events.take(self._position, due)
            self._stats.events_sent += due - self._position
            self._position = due
        else:
            data = b""
        if self._position == self._at_fault:
            self._fail(data)
        elif self._position == self._events.total:
            self._finish(data)
        else:
            self._write(data)
            self._wait()

    def _due(self) -> int:
        """The position up to which events are to be sent now, by the pace and the bound of one write."""
        events = self._events
        batch = max(1, _BATCH_BYTES // events.event_bytes)
        due = self._position + batch
        pace = self._script.pace
        if pace:
            # Half an event is added for the clock's resolution: a timer that fires a microsecond early still sends its event.
            due = min(due, int((self._loop.time() - self._epoch) * pace + 1.5))
        if events.total is not None and due >= events.content_end:
            due = events.total  # the closing events are sent together with the last content event
        if self._at_fault is not None:
            due = min(due, self._at_fault)
        return max(due, self._position)

    def _wait(self) -> None:
        """Schedule `_tick` for when the next event is due: without a pace at once. Not while the transport is full."""
        if self._paused:
            return
        pace = self._script.pace
        if not pace:
            self._timer = self._loop.call_soon(self._tick)
        elif self._mode == "endless":
            self._timer = self._loop.call_later(1 / pace, self._tick)
        else:
            self._timer = self._loop.call_at(self._epoch + self._position / pace, self._tick)

    def _write(self, data: bytes, last: bool = False) -> None:
        if data:
            self._stats.bytes_sent += len(data)
            if self._chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        if last and self._chunked:
            data += b"0\r\n\r\n"
        if self._head:
            data = self._head + data
            self._head = b""
        if data:
            self._transport.write(data)

    def _finish(self, data: bytes) -> None:
        self._write(data, last=True)
        self._stats.stream_ended("finished")
        self._ended(self._chunked)

    def _fail(self, data: bytes) -> None:
        fault = self._script.fault
        assert fault is not None
        self._at_fault = None
        if fault.kind == "malformed":
            self._write(data + MALFORMED)
            self._stats.events_sent += 1
            self._wait()
        elif fault.kind == "endless":
            self._mode = "endless"
            self._write(data + b"data: ")
            self._wait()
        elif fault.kind == "disconnect":
            self._write(data)
            self._stats.stream_ended("aborted")
            self._ended(False)
        else:
            self._mode = "stalled"  # no more timers; the stream is open until the client leaves
            self._write(data)
