"""From the upstream to the client, in one step: what comes is looked at, counted and on its way before the callback returns.

The law of this file. An event costs no task switch, no queue and no timer: the upstream's connection calls `took` with what one
recv brought, and the client's connection has it when `took` returns. Nothing waits in between, so nothing can pile up there; a
slow client pauses the upstream's connection (life.py). The stream's own task sleeps until `finished`, which is set once: at
the end marker, at the end of the body, or with the error that ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from diagnostics import StreamRecord

from ..errors import UpstreamError, UpstreamProtocolError
from ..protocol.endpoints import Endpoint
from ..protocol.sse import EventScanner, EventTooLargeError

__all__ = ["Pump"]


class Pump:
    """One stream's bytes. `write` gives a chunk to the client's connection; `data_chunks` had more in them than comments."""

    def __init__(
        self, endpoint: Endpoint, max_event_bytes: int, record: StreamRecord, write: Callable[[bytes], None]
    ) -> None:
        self.facts = endpoint.facts()
        self.data_chunks = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._scanner = EventScanner(max_event_bytes=max_event_bytes)
        self._record = record
        self._write = write

    @property
    def at_boundary(self) -> bool:
        """Whether another event may follow what the client was sent."""
        return self._scanner.at_boundary

    @property
    def done(self) -> bool:
        """Whether the end marker was handed on, and the blank line after it."""
        return self.facts.done and self._scanner.at_boundary

    def look(self, chunk: bytes) -> int:
        """The number of events that end in a chunk. Raises UpstreamProtocolError for a giant one."""
        try:
            events = self._scanner.feed(chunk)
        except EventTooLargeError as error:
            raise UpstreamProtocolError(f"the upstream sent an event of more than {error.limit} bytes") from error
        if chunk.find(b"data") >= 0:
            self.data_chunks += 1
            return events
        return 0  # comments keep a connection open; whoever waits for an event has none

    def hand_on(self, chunk: bytes, events: int) -> None:
        """Give a chunk that was looked at to the client's connection, and then, when it is on its way, learn from it."""
        self._write(chunk)
        self._record.relayed(len(chunk), events)
        self.facts.feed(chunk)

    # What the upstream's connection calls

    def took(self, chunk: bytes) -> None:
        """The hot path."""
        if self.finished.done():
            return  # the end is decided, and the stream's task about to see it
        try:
            self.hand_on(chunk, self.look(chunk))
            if self.facts.done and self._scanner.at_boundary:
                self.finished.set_result(None)
        except Exception as error:  # noqa: BLE001  # the stream's task raises it, whatever it is: here it would be the loop's
            self.finished.set_exception(error)

    def ended(self, error: UpstreamError | None) -> None:
        """The body is over, or broke off."""
        if self.finished.done():
            return
        if error is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)

    def close(self) -> None:
        """Nobody waits for the end any more; an error that came at the same moment as another end is not the one told."""
        if self.finished.done() and not self.finished.cancelled():
            self.finished.exception()
