"""One HTTP/1.1 response, made of the bytes that a connection reads: its head, the body that waits to be taken, and its end.

The law of this file. httptools finds the parts of the response and calls the `on_...` methods; nothing here reads, writes or
waits. A response has bounds: MAX_HEAD_BYTES and MAX_HEADERS for its head, and MAX_HEAD_BYTES for what frames its body (chunk
headers, trailers) without bringing any of it. How much of the body may wait is the connection's concern (connection.py).
"""

from __future__ import annotations

from typing import Final

import httptools

from ...errors import UpstreamProtocolError
from ..causes import cannot_be_read

__all__ = ["MAX_HEAD_BYTES", "Answer", "Head"]

# What other clients and servers allow for a response's head, and for the fields in it.
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 256


class Head:
    """A response's status and headers."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers


_TAKEN: Final = Head(0, [])


class _TooManyHeadersError(Exception):
    """Ends the parser's work on a head."""


class Answer:
    """The response that a connection reads now; `begin` makes room for the next one.

    head            the head, once it has come whole
    parts           pieces of the body that have come and were not taken
    waiting_bytes   their length
    complete        the end of the body has come
    until_close     the body has no other end than the connection's
    """

    __slots__ = (
        "_framing_bytes",
        "_head_bytes",
        "_headers",
        "_keep_alive",
        "_parser",
        "_surplus",
        "complete",
        "head",
        "parts",
        "until_close",
        "waiting_bytes",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Forget the last response; what is fed from now on belongs to the next one."""
        self.head: Head | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._framing_bytes = 0  # chunk headers and trailers, since the last byte of the body
        self.parts: list[bytes] = []
        self.waiting_bytes = 0
        self.complete = False
        self.until_close = False
        self._keep_alive = False
        self._surplus = False  # bytes came after the response's end

    @property
    def begun(self) -> bool:
        """Whether anything of the response has come."""
        return self._head_bytes > 0

    @property
    def reusable(self) -> bool:
        """Whether all of it was taken, nothing came behind it, and the upstream lets another request follow."""
        return self.complete and self._keep_alive and not self._surplus and not self.parts

    def take_head(self) -> Head:
        """The head, which has come."""
        head, self.head = self.head, _TAKEN
        assert head is not None, "the head has not come"
        return head

    def take(self) -> bytes:
        """All of the body that has come and was not taken; there is some."""
        parts = self.parts
        body = parts.pop() if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.waiting_bytes = 0
        return body

    def drop(self) -> None:
        """Nobody wants what waits."""
        self.parts.clear()
        self.waiting_bytes = 0

    def feed(self, data: memoryview) -> UpstreamProtocolError | None:
        """Parse what one recv brought; what is wrong with it, if anything is. Parts that came before that can be taken.

        The error is returned: one that was raised would hold this frame, and the connection in it, until a garbage collection.
        """
        if self.head is None:
            self._head_bytes += len(data)
        waited_bytes = self.waiting_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # The parser's texts are fixed, and what a callback of ours raised has none: nothing of the upstream's is in them.
            cause = f"{type(error).__name__}: {error.__context__ or error}"
            if isinstance(error.__context__, _TooManyHeadersError):
                cause = f"more than {MAX_HEADERS} headers"
            cannot_be_read(cause)
            return UpstreamProtocolError(f"the upstream's answer is not HTTP/1.1: {type(error).__name__}")
        if self.waiting_bytes == waited_bytes:
            return self._without_body(len(data))
        return None

    def _without_body(self, nbytes: int) -> UpstreamProtocolError | None:
        """Bytes have come that brought nothing of the body: of a head, of a chunk's head, of trailers. There may be so many."""
        if self.head is None and self._head_bytes > MAX_HEAD_BYTES:
            return UpstreamProtocolError(f"the head of the upstream's answer is larger than {MAX_HEAD_BYTES} bytes")
        if self.head is _TAKEN:
            self._framing_bytes += nbytes
            if self._framing_bytes > MAX_HEAD_BYTES and not self.complete:
                return UpstreamProtocolError(
                    f"the upstream sent more than {MAX_HEAD_BYTES} bytes of trailers or chunk headers"
                )
        return None

    def close(self) -> None:
        """Nothing more comes. The parser holds methods of this object: with it both would wait for the garbage collector."""
        del self._parser

    # What the parser calls

    def on_message_begin(self) -> None:
        self._surplus = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None and not self._surplus:  # else it is a trailer, which nobody asked for
            if len(self._headers) >= MAX_HEADERS:
                raise _TooManyHeadersError  # each is three objects, of as little as four bytes
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._surplus:
            return
        if status < 200:  # 100 Continue, 103 Early Hints: the response is still to come
            self._headers.clear()
            return
        self.head, headers = Head(status, self._headers), self._headers
        self._headers = []
        names = {name.lower() for name, _ in headers}
        self._keep_alive = self._parser.should_keep_alive()
        # RFC 9112, 6.3: without a length and not chunked, the body ends with the connection.
        self.until_close = not names & {b"content-length", b"transfer-encoding"} and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        if not self._surplus:
            self._framing_bytes = 0
            self.parts.append(body)
            self.waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.complete = True
