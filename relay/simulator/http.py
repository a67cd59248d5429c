"""HTTP/1.1 for the simulator: one asyncio protocol for each connection, over httptools, one answer after the other.

A connection is read while it is answered, so that a disconnect is seen at once. A client that half-closes its connection counts
as gone too. Pipelined requests wait, a bounded number of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import httptools

from .events import models
from .forms import FORMS
from .grammar import PREFIX
from .requests import AnswerRequest, SimulatedError, read_request
from .service import Service
from .stream import AnswerStream

__all__ = ["MAX_REQUEST_BYTES", "SimulatorConnection"]

# A prompt of a million tokens is about 4 MiB.
MAX_REQUEST_BYTES = 4 * 1024 * 1024
# A usual bound of HTTP servers for a request's head.
_MAX_HEAD_BYTES = 64 * 1024
_MAX_WAITING_REQUESTS = 16
# Of the transport's write buffer: a stream's unsent bytes in this process are bounded by this and one batch.
_HIGH_WATER_BYTES = 64 * 1024

_MODELS = ("gpt-4o-mini", "gpt-4o", PREFIX)
_EVENT_STREAM_HEADERS = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"


@dataclass(slots=True)
class _Request:
    method: str
    path: str
    body: bytes
    too_large: bool
    chunked: bool
    keep_alive: bool


class SimulatorConnection(asyncio.Protocol):
    """One client's connection, from accept to close."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._stream: AnswerStream | None = None
        self._timer: asyncio.TimerHandle | None = None  # of an answer that does not stream
        self._busy = False
        self._keep_alive = True
        self._waiting: deque[_Request] = deque()
        self._head_bytes = 0
        self._begin_request()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, but not asyncio's class
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._service.connections.add(self)
        self._service.stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.connections.discard(self)
        self._service.stats.connections -= 1
        if self._stream is not None:
            self._stream.stop()
            self._stream = None
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._transport = None

    def eof_received(self) -> None:
        self.abort()

    def pause_writing(self) -> None:
        self._paused = True
        if self._stream is not None:
            self._stream.pause()

    def resume_writing(self) -> None:
        self._paused = False
        if self._stream is not None:
            self._stream.resume()

    def abort(self) -> None:
        """Drop the connection, with all unsent bytes."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # refused in on_message_complete
        except httptools.HttpParserError as error:
            self._refuse(SimulatedError(400, f"the request is not HTTP/1.1: {error}"))
            return
        if not self._in_body and self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(SimulatedError(431, f"the head of the request has more than {_MAX_HEAD_BYTES} bytes"))

    # Called by httptools

    def on_message_begin(self) -> None:
        self._begin_request()

    def _begin_request(self) -> None:
        self._url = b""
        self._body = bytearray()
        self._in_body = False
        self._too_large = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"traceparent":
            self._service.stats.last_traceparent = value.decode("latin-1")
        elif name == b"expect" and value.lower() == b"100-continue" and not self._busy and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        if len(self._body) + len(body) > MAX_REQUEST_BYTES:
            self._too_large = True  # the rest is read and dropped, since a client may not read before it has sent all
            self._body.clear()
        if not self._too_large:
            self._body += body

    def on_message_complete(self) -> None:
        self._in_body = False
        if self._transport is None or self._transport.is_closing():
            return  # an earlier request closes the connection
        self._service.stats.requests += 1
        if self._parser.should_upgrade():
            self._refuse(SimulatedError(400, "this server speaks HTTP/1.1 only and upgrades to nothing"))
            return
        request = _Request(
            method=self._parser.get_method().decode("latin-1"),
            path=self._url.partition(b"?")[0].decode("latin-1"),
            body=bytes(self._body),
            too_large=self._too_large,
            chunked=self._parser.get_http_version() == "1.1",
            keep_alive=self._parser.should_keep_alive(),
        )
        self._body.clear()
        if not self._busy:
            self._answer(request)
        elif len(self._waiting) < _MAX_WAITING_REQUESTS:
            self._waiting.append(request)
        else:
            self.abort()

    # Answers

    def _answer(self, request: _Request) -> None:
        self._busy = True
        self._keep_alive = request.keep_alive
        try:
            self._route(request)
        except SimulatedError as error:
            self._respond(error.status, error.to_json(), _headers_of(error))

    def _route(self, request: _Request) -> None:
        route = (request.method, request.path)
        if request.path not in _METHODS:
            raise SimulatedError(404, f"invalid URL ({request.method} {request.path})", code="unknown_url")
        if request.method != _METHODS[request.path]:
            raise SimulatedError(405, f"{request.path} takes {_METHODS[request.path]}, not {request.method}")
        if request.too_large:
            raise SimulatedError(
                413, f"the request body has more than {MAX_REQUEST_BYTES} bytes", code="request_too_large"
            )
        if route == ("GET", "/simulator/stats"):
            self._respond(200, self._service.stats.to_json())
        elif route == ("GET", "/v1/models"):
            self._respond(200, models(_MODELS))
        else:
            self._make(read_request(FORMS[request.path], request.body, self._service.seed), request.chunked)

    def _make(self, request: AnswerRequest, chunked: bool) -> None:
        if self._service.meets_fault(request):
            raise _error_of(request)
        self._service.answers += 1
        if request.stream:
            self._start_stream(request, chunked)
        else:
            self._complete_later(request)

    def _start_stream(self, request: AnswerRequest, chunked: bool) -> None:
        assert self._transport is not None
        ordinal = self._service.answers
        events = request.form.events(
            request.model, request.script, ordinal, request.prompt_tokens, request.include_usage
        )
        framing = b"transfer-encoding: chunked\r\n" if chunked else b""
        keep = self._keep_alive and chunked
        head = _status_line(200) + _EVENT_STREAM_HEADERS + framing + _connection_header(keep) + b"\r\n"
        self._stream = AnswerStream(
            self._transport,
            head,
            events,
            request.script,
            self._service.stats,
            chunked=chunked,
            paused=self._paused,
            ended=self._stream_ended,
        )
        self._stream.start()

    def _stream_ended(self, whole: bool) -> None:
        self._stream = None
        self._keep_alive = self._keep_alive and whole
        self._next()

    def _complete_later(self, request: AnswerRequest) -> None:
        script = request.script
        kind = script.fault.kind if script.fault is not None else None
        if kind == "stall":
            return
        seconds = script.first + ((script.events or 0) / script.pace if script.pace else 0.0)
        self._timer = asyncio.get_running_loop().call_later(
            seconds, self._complete, request, kind, self._service.answers
        )

    def _complete(self, request: AnswerRequest, kind: str | None, ordinal: int) -> None:
        self._timer = None
        assert self._transport is not None
        if kind == "disconnect":
            self._transport.close()
            return
        body = request.form.whole(request.model, request.script, ordinal, request.prompt_tokens)
        self._respond(200, body[: len(body) // 2] if kind == "malformed" else body)

    def _respond(self, status: int, body: bytes, headers: bytes = b"") -> None:
        assert self._transport is not None
        length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        head = _status_line(status) + length + headers + _connection_header(self._keep_alive) + b"\r\n"
        self._transport.write(head + body)
        self._next()

    def _next(self) -> None:
        """The answer is complete: answer the next pipelined request, or close the connection where it is not kept alive."""
        self._busy = False
        if not self._keep_alive:
            if self._transport is not None:
                self._transport.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())

    def _refuse(self, error: SimulatedError) -> None:
        """Answer an unreadable request with an error, and close; while another answer is under way, abort."""
        if self._busy:
            self.abort()
            return
        self._keep_alive = False
        self._respond(error.status, error.to_json())


_METHODS = {**dict.fromkeys(FORMS, "POST"), "/v1/models": "GET", "/simulator/stats": "GET"}


def _error_of(request: AnswerRequest) -> SimulatedError:
    if request.script.fault is not None and request.script.fault.status == 429:
        return SimulatedError(
            429,
            f"rate limit reached for {request.model}, as its name asks for",
            kind="requests",
            code="rate_limit_exceeded",
        )
    return SimulatedError(500, f"the server failed, as the name {request.model} asks for", kind="server_error")


def _headers_of(error: SimulatedError) -> bytes:
    return b"retry-after: 1\r\n" if error.status == 429 else b""


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


def _connection_header(keep_alive: bool) -> bytes:
    return b"connection: keep-alive\r\n" if keep_alive else b"connection: close\r\n"
