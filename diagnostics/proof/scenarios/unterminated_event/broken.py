"""A relay that forwards whole events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service


class Decoder:
    """Cuts bytes into events; each ends with a blank line."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        # The blank line may begin in the pending bytes.
        searched = max(0, len(self._pending) - 1)
        self._pending += data
        while (end := self._pending.find(b"\n\n", searched)) >= 0:
            yield bytes(self._pending[: end + 2])
            del self._pending[: end + 2]
            searched = 0


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    decoder = Decoder()
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            for event in decoder.feed(chunk):
                yield event


app = service(relay)
