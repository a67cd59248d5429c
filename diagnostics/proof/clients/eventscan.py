"""Reads an event stream for its grammar, not for its content.

Lines end with LF, CRLF or CR, an event ends with a blank line, a line that begins with a colon is a comment (WHATWG HTML,
server-sent events, 9.2.6).

    EventCount   counts blank lines, which costs little and is all that a load needs
    EventScan    reads every line of one stream: events, comments, fields, whether data is JSON
"""

from __future__ import annotations

import json

__all__ = ["EventCount", "EventScan"]

# A line beyond this is no event that anyone wants parsed: its length is what is wrong with it.
_MAX_LINE_BYTES = 4 * 1024 * 1024


class EventCount:
    """Counts the blank lines in a stream of bytes, wherever it is cut and whichever line ending it has."""

    def __init__(self) -> None:
        self.events = 0
        self._line_is_empty = True
        self._line_has_begun = False
        self._after_cr = False

    @property
    def between_events(self) -> bool:
        """Whether what comes next begins an event."""
        return self._line_is_empty and not self._line_has_begun

    def feed(self, data: bytes) -> None:
        # A line at a time, not a byte at a time: events are kilobytes long.
        if not data:
            return
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines[:-1]:
            if line or not self._line_is_empty:
                self._line_has_begun = True
            elif self._line_has_begun:
                self.events += 1
                self._line_has_begun = False
            self._line_is_empty = True
        if lines[-1]:
            self._line_is_empty = False


class EventScan:
    """Feed it the body, piece by piece. An event without data is not dispatched by a browser and does not count.

    done       an event `[DONE]` has come
    not_json   events whose data is neither JSON nor [DONE]
    too_long   a line was longer than 4 MiB, and what follows was not read
    """

    def __init__(self) -> None:
        self.events = 0
        self.comments = 0
        self.fields: set[str] = set()
        self.done = False
        self.not_json = 0
        self.too_long = False
        self._rest = b""
        self._data: list[bytes] = []
        self._after_cr = False

    def feed(self, piece: bytes) -> None:
        if self.too_long or not piece:
            return
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
        self._after_cr = piece.endswith(b"\r") if piece else False
        lines = (self._rest + piece).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._line(line)
        if len(self._rest) > _MAX_LINE_BYTES:
            self.too_long, self._rest = True, b""

    def _line(self, line: bytes) -> None:
        if not line:
            self._end_of_event()
            return
        if line.startswith(b":"):
            self.comments += 1
            return
        name, _, value = line.partition(b":")
        if name in (b"data", b"event", b"id", b"retry"):
            self.fields.add(name.decode())
        if name == b"data":
            self._data.append(value.removeprefix(b" "))

    def _end_of_event(self) -> None:
        if not self._data:
            return
        data, self._data = b"\n".join(self._data), []
        self.events += 1
        if data == b"[DONE]":
            self.done = True
            return
        try:
            json.loads(data)
        except ValueError:
            self.not_json += 1
