"""The short way to the routes that relay: their requests reach their handlers without the framework's middlewares and router.

A request passes eight layers of the framework before a handler sees it. They find the route among others, solve dependencies,
keep exit stacks and turn exceptions into responses: the routes that relay are three exact paths, have no dependencies, and
mostly raise nothing. All else is the framework's: every other path and method, and every failure. A handler's exception is
raised again by the framework's route of the same path, whose exception handlers answer it as those of any other route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import Request, Response

from ..client.reply import Receive, Scope, Send

__all__ = ["Direct", "Handler", "through_framework"]

Handler = Callable[[Request], Awaitable[Response]]

# The key of a handler's exception in the request's ASGI scope.
_RAISED: Final = "relay.raised"


class Direct:
    """Pure ASGI middleware: POST requests for exact paths go to their handlers, all others to the app."""

    def __init__(self, app: Any, handlers: Mapping[str, Handler]) -> None:
        self._app = app
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await handler(Request(scope, receive, send))
        except Exception as error:  # noqa: BLE001  # raised again by `through_framework`
            scope[_RAISED] = error
            await self._app(scope, receive, send)
        else:
            await response(scope, receive, send)


def through_framework(handler: Handler) -> Handler:
    """The endpoint of the framework's route with this handler: raises again what the handler raised for `Direct`."""

    async def endpoint(request: Request) -> Response:
        error = request.scope.pop(_RAISED, None)
        if error is None:
            return await handler(request)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: a reference cycle, with the request in it

    return endpoint
