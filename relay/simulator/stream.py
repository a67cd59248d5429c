"""One streamed answer: sends events at the asked pace until its end, its fault, or its client's leaving.

A stream never has more than one timer, writes several events at once where several are due, and sends nothing while the
transport is full; what became due meanwhile follows in batches, as from an upstream that generates at its own pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .events import MALFORMED, Events
from .grammar import Script
from .stats import Stats

__all__ = ["AnswerStream"]

# One write takes so many bytes, if that is more than one event: enough that the cost of a write is small beside that of
# its bytes, and no more than the transport's high-water mark, so that a slow client is noticed after one write.
_BATCH_BYTES = 64 * 1024


class AnswerStream:
    """Lives from `start()` to the call of `ended(keep_alive)`, or to `stop()` when the client has left.

    `head` is the response's status line and headers, sent with the first event. With `chunked` False (HTTP/1.0) the
    body ends with the connection.
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
        self._mode = "events"  # or "endless" or "stalled", once the fault has come
        self._timer: asyncio.Handle | None = None
        fault = script.fault
        self._at_fault = fault.at if fault is not None and fault.status is None else None

    def start(self) -> None:
        self._stats.stream_started()
        self._timer = self._loop.call_later(self._script.first, self._begin)

    def pause(self) -> None:
        """The transport is full."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        if self._timer is None and self._epoch and self._mode != "stalled":
            self._timer = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        """The client has left: nothing is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._stats.stream_ended("disconnected")

    def _begin(self) -> None:
        self._epoch = self._loop.time()
        self._tick()

    def _tick(self) -> None:
        self._timer = None
        if self._paused:
            return  # resume() goes on
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
        """The position that is to be reached now."""
        events = self._events
        batch = max(1, _BATCH_BYTES // events.event_bytes)
        due = self._position + batch
        pace = self._script.pace
        if pace:
            # The half absorbs the clock's grain: a timer that fires a microsecond early still sends its event.
            due = min(due, int((self._loop.time() - self._epoch) * pace + 1.5))
        if events.total is not None and due >= events.content_end:
            due = events.total  # what closes the answer comes along with its last content event
        if self._at_fault is not None:
            due = min(due, self._at_fault)
        return max(due, self._position)

    def _wait(self) -> None:
        """Be called again when the next event is due; at once without a pace, unless the transport is full."""
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
            self._mode = "stalled"  # no timer any more, and open until the client leaves
            self._write(data)
