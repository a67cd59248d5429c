"""The same relay: on SIGTERM its streams end with a last event, before the server begins to wait for them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from types import FrameType
from typing import TypeVar

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

GOODBYE = b"event: error\ndata: the service is shutting down\n\n"
T = TypeVar("T")


class Shutdown:
    """Ends waits (by a time-out) when the process gets SIGTERM."""

    def __init__(self) -> None:
        self._begun = False
        self._waits: set[asyncio.Timeout] = set()

    async def before(self, what: Awaitable[T]) -> T:
        """Await `what` and return its result. Raises TimeoutError if the shutdown begins first."""
        async with asyncio.timeout(0 if self._begun else None) as wait:
            self._waits.add(wait)
            try:
                return await what
            finally:
                self._waits.discard(wait)

    def begin(self) -> None:
        self._begun = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)


shutdown = Shutdown()


@asynccontextmanager
async def listen_to_sigterm(_: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Begin the shutdown on SIGTERM, and leave the rest of it to the server, whose handler was there before."""
    loop = asyncio.get_running_loop()
    servers = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(shutdown.begin)
        if callable(servers):
            servers(number, frame)

    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, servers)


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    try:
        async with ask(session, body) as response:
            while chunk := await shutdown.before(response.content.readany()):
                yield chunk
    except TimeoutError:
        yield GOODBYE


app = service(relay, listen_to_sigterm)
