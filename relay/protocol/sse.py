"""Server-Sent Events, sans-IO: bytes to events and back, by the WHATWG rules, within a stated number of bytes.

The rules are those of https://html.spec.whatwg.org/multipage/server-sent-events.html, section "Interpreting an event
stream". There are three readers of the same bytes, which agree on where an event ends:

- `EventDecoder` decodes events. It holds the unfinished line and the data of the unfinished event.
- `EventScanner` only counts events, in bytes that are forwarded unchanged. It holds a few numbers.
- `LineFeeds` turns CR and CRLF into LF, for code that then searches for blank lines itself.

Their results do not depend on how the bytes are cut into chunks, and they take time linear in the number of bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "CR",
    "MAX_EVENT_BYTES",
    "MAX_LINE_BYTES",
    "Event",
    "EventDecoder",
    "EventScanner",
    "EventTooLargeError",
    "LineFeeds",
    "comment",
    "encode",
]

# A JSON payload is one line. A chat delta has a few hundred bytes; the largest honest lines are whole tool-call
# arguments and inline images, some hundred KiB. A client library commonly needs four times a line's size to parse it.
MAX_LINE_BYTES = 1024 * 1024
# Twice a line, so that the other lines (event, id, comments) fit beside the largest line.
MAX_EVENT_BYTES = 2 * MAX_LINE_BYTES

_BOM = b"\xef\xbb\xbf"
_LF = 0x0A
CR = 0x0D  # an int: in CPython 3.11 `in` on bytes takes seven times as long for a bytes object, as it tries int first
# 10**15 ms are 30,000 years. int() raises for strings of thousands of digits, which a peer could send.
_MAX_RETRY_DIGITS = 15
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLANK_LINES = re.compile(rb"\n\n+")


class EventTooLargeError(Exception):
    """The sender's fault: a line or an event (`part`) has more than `limit` bytes; `size` were seen so far.

    The size of an event is that of its lines, each with one byte for its end. `events` are those that the same call of
    `EventDecoder.feed` completed before it. Remedy: end the stream; raise the limit if such events are legitimate.
    """

    def __init__(self, part: str, size: int, limit: int, events: tuple[Event, ...] = ()) -> None:
        super().__init__(
            f"an SSE {part} has {size} bytes or more, the limit is {limit}: "
            "the sender never ends it, or the limit must be raised"
        )
        self.part = part
        self.size = size
        self.limit = limit
        self.events = events


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event: its type, its data with lines joined by LF, and the last event id at that moment."""

    event: str
    data: str
    id: str = ""


class LineFeeds:
    """Turns every line end into LF and drops a byte order mark at the start; keeps two numbers between chunks.

    After the start, bytes without CR need no work, so that callers on a hot path write
    `if CR in chunk or line_feeds.bom_seen >= 0 or line_feeds.after_cr: chunk = line_feeds.feed(chunk)`.
    """

    __slots__ = ("after_cr", "bom_seen")

    def __init__(self) -> None:
        self.bom_seen = 0  # bytes of the byte order mark matched so far; -1 after the start
        self.after_cr = False  # the last byte was a CR, whose LF may follow

    @property
    def withheld(self) -> int:
        """How many bytes `feed` has not returned yet, since they may be the beginning of a byte order mark."""
        return max(self.bom_seen, 0)

    def feed(self, chunk: bytes) -> bytes:
        """The chunk with LF for line ends. A CR at its end counts at once; an LF that begins the next chunk is then dropped."""
        if self.bom_seen >= 0:
            chunk = self._start(chunk)
        if not chunk:
            return chunk
        if self.after_cr and chunk[0] == _LF:
            chunk = chunk[1:]
            self.after_cr = False
            if not chunk:
                return chunk
        self.after_cr = chunk.endswith(b"\r")
        # The first chunk of a stream comes here though it has no CR, and a search for one byte is much faster than one for two.
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if CR in chunk else chunk

    def copy(self) -> LineFeeds:
        """The same state, to try a chunk without committing to it."""
        other = LineFeeds()
        other.bom_seen = self.bom_seen
        other.after_cr = self.after_cr
        return other

    def _start(self, chunk: bytes) -> bytes:
        chunk = _BOM[: self.bom_seen] + chunk
        if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
            self.bom_seen = len(chunk)
            return b""
        self.bom_seen = -1
        return chunk.removeprefix(_BOM)


class EventDecoder:
    """Decodes one event stream. Besides the chunk it is given, it holds `max_line_bytes` + `max_event_bytes` at most.

    last_event_id   for the Last-Event-ID header of the next connection
    retry           the reconnection time in milliseconds that the server sent, None until then
    at_start        False: the bytes are from the middle of a stream, where a byte order mark is part of a line

    `last_event_id` and `retry` are kept over `eof()`, as they are over connections.

    >>> decoder = EventDecoder()
    >>> decoder.feed(b"data: a\\r\\ndata: b\\r")
    []
    >>> decoder.feed(b"\\n\\r\\n")
    [Event(event='message', data='a\\nb', id='')]
    """

    def __init__(
        self,
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
        last_event_id: str = "",
        at_start: bool = True,
    ) -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._begin()
        if not at_start:
            self._line_feeds.bom_seen = -1

    def _begin(self) -> None:
        self._line_feeds = LineFeeds()
        self._line = bytearray()
        self._block_bytes = 0  # of the complete lines of the unfinished event
        self._id = self.last_event_id
        self._data = bytearray()
        self._type = ""
        self._failure: EventTooLargeError | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events that they complete, often none.

        Raises EventTooLargeError, also on every further call until `eof()`.
        """
        if self._failure is not None:
            raise self._failure
        events: list[Event] = []
        chunk = self._line_feeds.feed(data)
        start = 0
        try:
            while (end := chunk.find(b"\n", start)) >= 0:
                self._extend_line(chunk, start, end)
                start = end + 1
                event = self._end_line()
                if event is not None:
                    events.append(event)
            self._extend_line(chunk, start, len(chunk))
        except EventTooLargeError as error:
            error.events = tuple(events)
            self._failure = error
            raise
        return events

    def eof(self) -> int:
        """The stream has ended: discard the unterminated event, and start anew for another connection.

        Returns how many bytes were discarded; 0: the stream ended between two events.
        """
        discarded = self._block_bytes + len(self._line) + self._line_feeds.withheld
        self._begin()
        return discarded

    def _extend_line(self, chunk: bytes, start: int, end: int) -> None:
        size = len(self._line) + end - start
        if size > self._max_line_bytes:
            raise EventTooLargeError("line", size, self._max_line_bytes)
        if self._block_bytes + size > self._max_event_bytes:
            raise EventTooLargeError("event", self._block_bytes + size, self._max_event_bytes)
        self._line += chunk[start:end]

    def _end_line(self) -> Event | None:
        if not self._line:
            return self._dispatch()
        self._block_bytes += len(self._line) + 1
        if self._block_bytes > self._max_event_bytes:
            raise EventTooLargeError("event", self._block_bytes, self._max_event_bytes)
        name, _, value = bytes(self._line).partition(b":")
        self._line.clear()
        self._field(name, value.removeprefix(b" "))
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._type = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry = int(value)
        # Other fields are ignored, as the standard requires; a comment is a field with an empty name.

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        self._block_bytes = 0
        event = None
        if self._data:  # one `data` field, even an empty one, has left its line end here
            text = self._data[:-1].decode(errors="replace")
            event = Event(self._type or "message", text, self._id)
            self._data = bytearray()  # a new one: clear() may keep a large event's memory
        self._type = ""
        return event


class EventScanner:
    """Counts events in bytes that are forwarded unchanged; keeps numbers, no bytes.

    It counts blocks: lines with at least one byte, ended by a blank line. A comment alone is a block too.

    Its cost grows with the lines, not with the bytes, and is least where chunks hold whole events, as nearly all do.
    """

    __slots__ = ("_line_feeds", "_newlines", "_pending", "max_event_bytes")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes
        self._line_feeds = LineFeeds()
        self._pending = 0  # bytes since the last boundary
        self._newlines = 2  # line ends behind the bytes so far: 0 within a line, 1 after a line, 2 between events

    @property
    def at_boundary(self) -> bool:
        """Whether another event may follow here. If not, a blank line (`b"\\n\\n"`) must be sent first."""
        return self._newlines == 2 and not self._line_feeds.withheld

    def feed(self, chunk: bytes) -> int:
        """The number of events that end in this chunk.

        Raises EventTooLargeError when an event, terminated or not, has more than `max_event_bytes`. The chunk then does not
        count: `at_boundary` is about the bytes before it, so that the caller can drop it and end the stream cleanly.
        """
        line_feeds = self._line_feeds
        if CR in chunk or line_feeds.bom_seen >= 0 or line_feeds.after_cr:
            return self._feed_any(chunk)
        return self._feed_lf(chunk)

    def _feed_any(self, chunk: bytes) -> int:
        line_feeds = self._line_feeds.copy()
        events = self._feed_lf(line_feeds.feed(chunk))
        self._line_feeds = line_feeds
        return events

    def _feed_lf(self, chunk: bytes) -> int:
        if not chunk:
            return 0
        if self._pending + len(chunk) > self.max_event_bytes:
            return self._feed_measured(chunk)
        if self._newlines == 2 and 0 < chunk.find(b"\n") == len(chunk) - 2 and chunk[-1] == _LF:
            return 1  # one event of one line: most chunks, where the relay keeps up with the upstream
        return self._feed_fitting(chunk)

    def _feed_fitting(self, chunk: bytes) -> int:
        """The events that end in a chunk in which none can be too large: one pass of a regular expression."""
        size = len(chunk)
        first = size - len(chunk.lstrip(b"\n")) if self._newlines else 0  # blank lines before it end no further event
        events = len(_BLANK_LINES.findall(chunk, first))
        if self._newlines == 1 and first:
            events += 1
        between = self._newlines == 2 or first > 0
        if (between and first == size) or (first < size and chunk.endswith(b"\n\n")):
            self._newlines, self._pending = 2, 0
            return events
        last_blank = chunk.rfind(b"\n\n", first)
        if last_blank >= 0:
            self._pending = size - last_blank - 2
        else:
            self._pending = size - first if between else self._pending + size
        self._newlines = 1 if chunk[-1] == _LF else 0
        return events

    def _feed_measured(self, chunk: bytes) -> int:
        """The events that end in a chunk in which one may be too large: adds up the bytes of each line."""
        events = 0
        pending = self._pending
        newlines = self._newlines
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if end > start or not newlines:
                pending += end + 1 - start
                newlines = 1
            elif newlines == 1:
                self._check_size(pending)
                events += 1
                pending = 0
                newlines = 2
            start = end + 1
        if start < len(chunk):
            pending += len(chunk) - start
            newlines = 0
        self._check_size(pending)
        self._pending = pending
        self._newlines = newlines
        return events

    def _check_size(self, size: int) -> None:
        if size > self.max_event_bytes:
            raise EventTooLargeError("event", size, self.max_event_bytes)


def encode(
    data: str | bytes,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002  # the field's name in the standard
    retry: int | None = None,
) -> bytes:
    r"""One event as bytes, ended by its blank line. Each line of the data (LF, CRLF or CR) becomes a field.

    `retry` is in milliseconds. Raises ValueError for a line end or NUL in `event` or `id`, and for a negative `retry`.

    >>> encode("a\nb", event="delta", id="7")
    b'event: delta\nid: 7\ndata: a\ndata: b\n\n'
    """
    lines = []
    if event is not None:
        lines.append(b"event: " + _single_line("event", event))
    if id is not None:
        lines.append(b"id: " + _single_line("id", id))
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry is {retry}, it must be a number of milliseconds from 0 on")
        lines.append(b"retry: %d" % retry)
    raw = data.encode() if isinstance(data, str) else data
    lines += [b"data: " + line for line in _LINE_END.split(raw)]
    return b"\n".join(lines) + b"\n\n"


def comment(text: str = "") -> bytes:
    r"""A comment as bytes, ended by a blank line: keeps a silent connection open.

    >>> comment("ping")
    b': ping\n\n'
    """
    return b"\n".join(b": " + line for line in _LINE_END.split(text.encode())) + b"\n\n"


def _single_line(name: str, value: str) -> bytes:
    if any(character in value for character in "\r\n\0"):
        raise ValueError(f"{name} is {value!r}: a line end or NUL in it would end the field or have it ignored")
    return value.encode()
