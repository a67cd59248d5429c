"""Streams are served outside of the framework that made them.

FastAPI finds the route, checks the request and makes the response. Each of its layers is a coroutine that waits for the one
below it, with exit stacks and copies of the request in between: nothing for an answer that is over in a moment, 10 KiB for each
stream that is open for an hour. So a stream's response, when the framework calls it, only leaves itself behind, and is served
when the framework has returned.
"""

from __future__ import annotations

import abc
from typing import Any, Final

from starlette.responses import Response

from .errors import ApiError
from .reply import Receive, Scope, Send

__all__ = ["Outside", "OutsideResponse", "answer_error"]

_LEFT: Final = "relay.outside"


class OutsideResponse(Response, abc.ABC):
    """A response that is served by `Outside`, under which its app has to run."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_LEFT].append(self)

    @abc.abstractmethod
    async def serve(self, scope: Scope, send: Send) -> None:
        """Send the whole response. Raises ApiError, which is the answer then, before anything was sent."""


class Outside:
    """Pure ASGI middleware: calls the framework, then serves the response that it left behind, if it did."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left: list[OutsideResponse] = []
        # A copy: what the framework puts into its scope goes when it returns.
        await self._app({**scope, _LEFT: left}, receive, send)
        if left:
            try:
                await left.pop().serve(scope, send)
            except ApiError as error:
                await answer_error(error, send)


async def answer_error(error: ApiError, send: Send) -> None:
    """An error as a whole response."""
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
