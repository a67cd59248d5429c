"""Parses one HTTP/1.1 response from the bytes that a connection reads: its head, its body, and its end. Sans-IO.

The law of this file. httptools finds the parts of the response and calls the `on_...` methods. A response has bounds:
MAX_HEAD_BYTES and MAX_HEADERS for its head, and MAX_HEAD_BYTES for framing that brings no bytes of the body (chunk headers,
trailers). How many bytes of the body may wait here is bounded by the connection (connection.py).
"""

from __future__ import annotations

from typing import Final

import httptools

from ...errors import UpstreamProtocolError
from ..failure_log import cannot_be_read

__all__ = ["MAX_HEAD_BYTES", "AnswerReader", "Head"]

# Usual bounds of other HTTP clients and servers for a head, and for its fields.
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
    """Raised in a callback of the parser to stop it."""


class _BodyBeforeHeadError(Exception):
    """Raised in a callback of the parser to stop it."""


class AnswerReader:
    """The response that a connection reads now; `begin` resets it for the next one.

    head            the head, once it is complete
    parts           pieces of the body that have come and were not taken
    waiting_bytes   their length together
    complete        the end of the body has come
    until_close     the body ends where the connection is closed: it has no length and is not chunked
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
        """Forget the last response: bytes that are fed from now on belong to the next one."""
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
        """Whether any byte of the response has come."""
        return self._head_bytes > 0

    @property
    def reusable(self) -> bool:
        """Whether the whole body was taken, no bytes follow it, and the upstream keeps the connection open (keep-alive)."""
        return self.complete and self._keep_alive and not self._surplus and not self.parts

    def take_head(self) -> Head:
        """The head, which must have come; called once."""
        head, self.head = self.head, _TAKEN
        assert head is not None, "the head has not come"
        return head

    def take(self) -> bytes:
        """All of the body that has come and was not taken; there must be some."""
        parts = self.parts
        body = parts.pop() if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.waiting_bytes = 0
        return body

    def drop(self) -> None:
        """Drop the parts that were not taken."""
        self.parts.clear()
        self.waiting_bytes = 0

    def feed(self, data: memoryview) -> UpstreamProtocolError | None:
        """Parse the bytes of one recv. Returns the error if they break the protocol or a bound; earlier parts can be taken.

        The error is not raised: its traceback would hold this frame, and the connection in it, until a garbage collection.
        """
        if self.head is None:
            self._head_bytes += len(data)
        waited_bytes = self.waiting_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # The parser's messages are fixed texts, and the error raised by a callback has none: none quotes the upstream.
            cause = f"{type(error).__name__}: {error.__context__ or error}"
            if isinstance(error.__context__, _TooManyHeadersError):
                cause = f"more than {MAX_HEADERS} headers"
            elif isinstance(error.__context__, _BodyBeforeHeadError):
                cause = "bytes of a body before the head of the answer"
            cannot_be_read(cause)
            return UpstreamProtocolError(f"the upstream's answer is not HTTP/1.1: {type(error).__name__}")
        if self.waiting_bytes == waited_bytes:
            return self._without_body(len(data))
        return None

    def _without_body(self, nbytes: int) -> UpstreamProtocolError | None:
        """Count bytes that brought none of the body (a head, chunk headers, trailers). Returns the error above the bound."""
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
        """Nothing more comes. Breaks the reference cycle with the parser, which holds methods of this object."""
        del self._parser

    # Called by the parser

    def on_message_begin(self) -> None:
        self._surplus = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None and not self._surplus:  # else it is a trailer: none are kept
            if len(self._headers) >= MAX_HEADERS:
                raise _TooManyHeadersError  # each is three objects, for as little as four bytes that came
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
            if self.head is None:
                # The parser lets any status but 1xx have a body, 003 as well. Nobody could take it: who asked waits for a head,
                # and would ask for ever whether it has come, since there are bytes that were not read.
                raise _BodyBeforeHeadError
            self._framing_bytes = 0
            self.parts.append(body)
            self.waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.complete = True
