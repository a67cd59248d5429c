"""Streams are served outside of the framework that made them.

FastAPI finds the route, checks the request and makes the response; the middlewares around it see to keys and spans. Each of
these layers is a coroutine that waits for the one below it, with exit stacks, closures and copies of the request in between:
nothing for an answer that is over in a moment, 15 KiB for each stream that is open for an hour. So a stream's response, when
the framework calls it, only leaves itself behind, and is served when all of them have returned.

What a middleware has to say of a response's head (CORS) it says in the `send` that it hands on: `KeepSend` keeps that one.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from starlette.responses import Response

from ..errors import ApiError
from .reply import Message, Receive, Scope, Send

__all__ = ["KeepSend", "Outside", "OutsideResponse", "answer_error"]

_LEFT: Final = "relay.outside"


class Seen(Protocol):
    """Who sees one request from its beginning to its end, that of its stream if it has one (see telemetry/server.py)."""

    def over(self, status: int | None) -> None:
        """It is over; `status` is what it was answered with, None where it was not."""


class OutsideResponse(Response, abc.ABC):
    """A response that is served by `Outside`, under which its app has to run."""

    background = None  # the framework asks

    def __init__(self) -> None:
        # Not the framework's, which makes a head and a body: it is not what sends this.
        pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_LEFT].response = self

    @abc.abstractmethod
    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        """Send the whole response. `asked_at`: when its request came, in monotonic seconds.

        Raises ApiError, which is the answer then, before anything was sent.
        """


class _Left:
    """What a request has left behind, and the way that its answer goes."""

    __slots__ = ("asked_at", "response", "send", "status", "to_client")

    def __init__(self, to_client: Send) -> None:
        self.asked_at = time.monotonic()
        self.to_client = to_client
        self.send: Send | None = None  # as the middlewares hand it on, where one of them has something to say
        self.response: OutsideResponse | None = None
        self.status: int | None = None

    def sent(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        return self.to_client(message)


class Outside:
    """Pure ASGI middleware, the outermost one: calls the app, then serves the response that it left behind, if it did.

    see   is told of each request, and says who sees it
    """

    def __init__(self, app: Any, see: Callable[[Scope], Seen | None]) -> None:
        self._app = app
        self._see = see

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = _Left(send)
        seen = self._see(scope)
        try:
            # A copy: what the framework puts into its scope goes when it returns.
            await self._app({**scope, _LEFT: left}, receive, left.sent)
            response, left.response = left.response, None
            if response is not None:
                answer, left.send = left.send or left.sent, None
                try:
                    await response.serve(scope, answer, left.asked_at)
                except ApiError as error:
                    await answer_error(error, answer)
        finally:
            if seen is not None:
                seen.over(left.status)


class KeepSend:
    """Pure ASGI middleware: what is left behind inside of it is sent by the `send` that it is given."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _LEFT in scope:
            scope[_LEFT].send = send
        await self._app(scope, receive, send)


async def answer_error(error: ApiError, send: Send) -> None:
    """An error as a whole response."""
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
