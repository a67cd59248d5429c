"""From the upstream to the client in one callback: a chunk is scanned, counted and written before the callback returns.

The law of this file. An event costs no task switch, no queue and no timer: the upstream's connection calls `on_piece` with the
bytes of one recv, and has them written to the client's connection when `on_piece` returns. There is no buffer in between that
could grow; a slow client pauses the upstream's connection (life.py). The stream's own task sleeps until `finished`, which is
set once: at the end marker, at the end of the body, or with the error that ends the stream.
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
    """Relays one stream's chunks.

    write         writes a chunk to the client's connection
    data_chunks   how many chunks had a `data` field in them; others are comments, or parts of an event
    finished      done when the stream has ended; holds the error if there was one
    """

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
        """Whether the bytes so far end with a whole event, so that another one may follow."""
        return self._scanner.at_boundary

    @property
    def done(self) -> bool:
        """Whether the end marker and the blank line after it were written to the client."""
        return self.facts.done and self._scanner.at_boundary

    def look(self, chunk: bytes) -> int:
        """The number of events that end in a chunk. Raises UpstreamProtocolError for an event above `max_event_bytes`."""
        try:
            events = self._scanner.feed(chunk)
        except EventTooLargeError as error:
            raise UpstreamProtocolError(f"the upstream sent an event of more than {error.limit} bytes") from error
        if chunk.find(b"data") >= 0:
            self.data_chunks += 1
            return events
        return 0  # comments only: they keep a connection open and are no events

    def hand_on(self, chunk: bytes, events: int) -> None:
        """Write a chunk to the client's connection, count it, and then, when it is on its way, parse the facts out of it."""
        self._write(chunk)
        self._record.relayed(len(chunk), events)
        self.facts.feed(chunk)

    # Called by the upstream's connection (upstream.body.Body.flow)

    def on_piece(self, chunk: bytes) -> None:
        """Relay one chunk. The hot path: called for each recv of a stream."""
        if self.finished.done():
            return  # the stream has ended, and its task has not run since
        try:
            self.hand_on(chunk, self.look(chunk))
            if self.facts.done and self._scanner.at_boundary:
                self.finished.set_result(None)
        except Exception as error:  # noqa: BLE001  # for the stream's task, which raises it: raised here, it would be the loop's
            self.finished.set_exception(error)

    def on_end(self, error: UpstreamError | None) -> None:
        """The body has ended: with an error, or with None at its regular end."""
        if self.finished.done():
            return
        if error is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)

    def close(self) -> None:
        """Nobody awaits `finished` any more. Marks its error as retrieved, or asyncio would log it."""
        if self.finished.done() and not self.finished.cancelled():
            self.finished.exception()
