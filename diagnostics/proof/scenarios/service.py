"""A relay's HTTP app, the same in every scenario, so that broken.py and fixed.py have little beside their difference.

    POST /v1/chat/completions   the body is sent to the upstream unchanged; the bytes that `relay` yields go to the client

The upstream's base URL is read from UPSTREAM_BASE_URL, which ends in /v1.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Protocol

import aiohttp
from fastapi import FastAPI, Request

from .response import EventStream

__all__ = ["Answer", "Beside", "Relay", "ask", "service", "session_of", "with_session"]

UPSTREAM = os.environ["UPSTREAM_BASE_URL"] + "/chat/completions"
JSON = {"content-type": "application/json"}

Relay = Callable[[aiohttp.ClientSession, bytes], AsyncGenerator[bytes | memoryview, None]]


# aiohttp's own type for this is private.
class Answer(Protocol):
    """A request to the upstream: can be awaited, or entered with `async with`."""

    def __await__(self) -> Generator[object, None, aiohttp.ClientResponse]: ...

    async def __aenter__(self) -> aiohttp.ClientResponse: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None: ...


Beside = Callable[[aiohttp.ClientSession], AbstractAsyncContextManager[None]]


def service(relay: Relay, beside: Beside = lambda _: nullcontext()) -> FastAPI:
    """The app. `relay` yields the bytes of one stream; `beside`: a context manager that is open as long as the app."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with with_session(app), beside(app.state.session):
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> EventStream:
        return EventStream(relay(session_of(request), await request.body()))

    return app


@asynccontextmanager
async def with_session(app: FastAPI) -> AsyncIterator[None]:
    """A lifespan: one HTTP client for all requests, closed with the app."""
    # No limit: with an exhausted pool a leak of connections would only show as a service that does not answer.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), raise_for_status=True
    ) as session:
        app.state.session = session
        yield


def session_of(request: Request) -> aiohttp.ClientSession:
    session: aiohttp.ClientSession = request.app.state.session
    return session


def ask(session: aiohttp.ClientSession, body: bytes) -> Answer:
    """POST `body` to the upstream. The response is closed by an `async with` block; an awaited one by the caller."""
    return session.post(UPSTREAM, data=body, headers=JSON)
