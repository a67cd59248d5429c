"""Serves a stream after FastAPI and every middleware have returned, so that an open stream does not keep their frames alive.

FastAPI finds the route, checks the request and builds the response; middlewares around it check keys and open spans. Each of
these layers is a coroutine that stays suspended until the layer below it returns. For a short answer that costs nothing; for
a stream that is open for an hour it costs 15 KiB. Therefore a stream's response (`OutsideResponse`) does not serve itself when
the framework calls it: it stores itself in the scope and returns. When all layers have returned, `Outside`, the outermost ASGI
app, finds the stored response in the scope and serves it.

A middleware such as CORS adds headers by wrapping `send`. `KeepSend`, placed inside such a middleware, stores the wrapped
`send` for `Outside`, so that the stream's head still gets these headers.
"""

from __future__ import annotations

import abc
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from starlette.responses import Response

from ..errors import ApiError
from .client import has_client
from .plain import PlainClient
from .reply import Message, Receive, Scope, Send

__all__ = ["KeepSend", "Outside", "OutsideResponse", "answer_error"]

_LEFT: Final = "relay.outside"

log = logging.getLogger("relay.client")


class Seen(Protocol):
    """The observer of one request, called when the request, or the stream that answers it, has ended (telemetry/server.py)."""

    def over(self, status: int | None) -> None:
        """The request has ended. `status` is the status of its response, None where no response was started."""


class OutsideResponse(Response, abc.ABC):
    """A response that is served by `Outside`, under which its app has to run."""

    background = None  # FastAPI reads it

    def __init__(self) -> None:
        # Starlette's would prepare a head and a body, which `serve` sends itself.
        pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_LEFT].response = self

    @abc.abstractmethod
    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        """Send the whole response. `asked_at`: when the request came, in monotonic seconds.

        May raise an ApiError before anything was sent: `Outside` answers with it.
        """


class _Left:
    """One request's entry in its scope: the response to serve outside of the framework, and the `send` for it."""

    __slots__ = ("asked_at", "response", "send", "status", "to_client")

    def __init__(self, to_client: Send) -> None:
        self.asked_at = time.monotonic()
        self.to_client = to_client
        self.send: Send | None = None  # as KeepSend got it, wrapped by the middlewares around it
        self.response: OutsideResponse | None = None
        self.status: int | None = None

    def sent(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        return self.to_client(message)


class Outside:
    """Pure ASGI middleware, the outermost one: calls the app, then serves the response that the app stored, if it did.

    see                called with each request's scope; returns the request's observer, None for none
    high_water_bytes   of a stream's bytes that wait in this process, where the server is not the relay's own (plain.py)
    """

    def __init__(self, app: Any, see: Callable[[Scope], Seen | None], high_water_bytes: int = 64 * 1024) -> None:
        self._app = app
        self._see = see
        self._high_water_bytes = high_water_bytes
        self._is_plain = False  # True once the warning below was logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = _Left(send)
        seen = self._see(scope)
        try:
            # A copy, so that the objects that the framework stores in its scope are freed when it returns.
            await self._app({**scope, _LEFT: left}, receive, left.sent)
            response, left.response = left.response, None
            if response is not None:
                answer, left.send = left.send or left.sent, None
                try:
                    if has_client(scope):
                        await response.serve(scope, answer, left.asked_at)
                    else:
                        await self._serve_plainly(response, scope, receive, answer, left.asked_at)
                except ApiError as error:
                    await answer_error(error, answer)
        finally:
            if seen is not None:
                seen.over(left.status)

    async def _serve_plainly(
        self, response: OutsideResponse, scope: Scope, receive: Receive, send: Send, asked_at: float
    ) -> None:
        """Serve a response by ASGI's messages alone, under a server that is not the relay's own."""
        if not self._is_plain:
            self._is_plain = True
            log.warning(
                "streams are sent by ASGI's send: this server is not the relay's own (`relay serve`), or has changed inside; "
                "each costs two tasks more, and a client's connection has the server's bounds"
            )
        async with PlainClient(receive, send, self._high_water_bytes) as client:
            await response.serve(client.in_scope(scope), client.send, asked_at)


class KeepSend:
    """Pure ASGI middleware: stores the `send` that it is given, for the response that `Outside` serves later."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _LEFT in scope:
            scope[_LEFT].send = send
        await self._app(scope, receive, send)


async def answer_error(error: ApiError, send: Send) -> None:
    """Send an error as a complete response: its status, headers and JSON body."""
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
