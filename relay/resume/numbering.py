r"""Numbers the events of one stream: takes the upstream's bytes, cut anywhere, and inserts an SSE `id` line into each event.

The law of this file. The `id` line is the last line of its event, so that it prevails over an `id` line of the upstream's own.
Bytes are returned in the step in which they come, also the parts of an unfinished event; the event itself is returned once it
is whole. Only blocks with a field in them are events. The blank line after a comment alone is left out, so that the comment
belongs to the event after it: to a client that has seen an id, some SSE decoders (that of OpenAI's Python library is one) give
an empty event for each blank line. Line ends become LF.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..protocol.sse import CR, LineFeeds

__all__ = ["Numbering"]

_LF: Final = 10
_COLON: Final = 58  # begins a comment
_NO_EVENT: Final = frozenset({_LF, _COLON})  # what a block that is no event may begin with


class Numbering:
    r"""Numbers one stream's events, the first as 1. `number` is that of the last whole event.

    >>> numbering = Numbering("s")
    >>> numbering.feed(b"data: a\n\n")
    (b'data: a\nid: s:1\n\n', (b'data: a',))
    >>> numbering.feed(b"data: b")
    (b'data: b', [])
    """

    __slots__ = ("_comment", "_event", "_id_line", "_in_line", "_line_feeds", "held", "number")

    def __init__(self, stream_id: str) -> None:
        self.number = 0
        self.held = 0  # bytes of the unfinished event; the scanner bounds them before (protocol.sse.EventScanner)
        self._id_line = b"id: %b:" % stream_id.encode()
        self._line_feeds = LineFeeds()
        self._event = bytearray()  # the fields of the unfinished event
        self._in_line = False  # the last line has no end yet
        self._comment = False  # the last line is a comment

    def feed(self, chunk: bytes) -> tuple[bytes, Sequence[bytes]]:
        """Returns the bytes for the client, and the events that this chunk completes: their lines without the last line end."""
        line_feeds = self._line_feeds
        if CR in chunk or line_feeds.bom_seen >= 0 or line_feeds.after_cr:
            chunk = line_feeds.feed(chunk)
        if not self._event and not self._in_line:
            if 0 < chunk.find(b"\n") == len(chunk) - 2 and chunk[-1] == _LF and chunk[0] != _COLON:
                # One event of one line: most chunks, where the relay keeps up with the upstream.
                self.number = number = self.number + 1
                event = chunk[:-2]
                return b"%b\n%b%d\n\n" % (event, self._id_line, number), (event,)
            if chunk.endswith(b"\n\n") and not chunk.endswith(b"\n\n\n"):
                events = chunk[:-2].split(b"\n\n")
                if all(event and event[0] not in _NO_EVENT for event in events):
                    return self._whole(events), events
        return self._lines(chunk)

    def frame(self, event: bytes, number: int) -> bytes:
        """The bytes for a client of a whole event."""
        return b"%b\n%b%d\n\n" % (event, self._id_line, number)

    def _whole(self, events: list[bytes]) -> bytes:
        first, id_line = self.number + 1, self._id_line
        self.number += len(events)
        return b"".join([b"%b\n%b%d\n\n" % (event, id_line, number) for number, event in enumerate(events, first)])

    def _lines(self, chunk: bytes) -> tuple[bytes, Sequence[bytes]]:
        """As `feed`, line by line."""
        out: list[bytes] = []
        events: list[bytes] = []
        start, size = 0, len(chunk)
        while start < size:
            end = chunk.find(b"\n", start)
            stop = size if end < 0 else end + 1
            piece = chunk[start:stop]
            start = stop
            if not self._in_line:
                if piece == b"\n":
                    if self._event:
                        self.number += 1
                        events.append(bytes(self._event[:-1]))
                        self._event = bytearray()  # a new one: clear() may keep a large event's memory
                        out.append(b"%b%d\n\n" % (self._id_line, self.number))
                    continue
                self._comment = piece[0] == _COLON
            self._in_line = end < 0
            out.append(piece)
            if self._event or not self._comment:
                self._event += piece
        self.held = len(self._event)
        return b"".join(out), events
