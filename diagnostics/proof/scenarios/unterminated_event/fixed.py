"""The same relay, which gives up on an event that is too large."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

LARGEST_EVENT = 16 * 1024


class EventTooLargeError(Exception):
    """The upstream sent more than LARGEST_EVENT bytes without a blank line."""


class Decoder:
    """Cuts bytes into events; each ends with a blank line, and no later than after LARGEST_EVENT bytes."""

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
        if len(self._pending) > LARGEST_EVENT:
            raise EventTooLargeError(f"an event of the upstream is larger than {LARGEST_EVENT} bytes")


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    decoder = Decoder()
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                for event in decoder.feed(chunk):
                    yield event
    except EventTooLargeError as error:
        yield f"event: error\ndata: {error}\n\n".encode()


app = service(relay)
