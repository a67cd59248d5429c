"""The same relay; to be served with `uvicorn --http MODULE:ImpatientProtocol`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from diagnostics.proof.scenarios.service import ask, service

WRITE_TIMEOUT_SECONDS = 0.5


class ImpatientProtocol(HttpToolsProtocol):
    """Aborts a connection whose buffer has been full for too long."""

    _patience: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._patience = self.loop.call_later(WRITE_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._calm()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._calm()

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


app = service(relay)
