"""The body of an upstream's response: the bytes as they come, read and closed by whoever streams them."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx2

__all__ = ["BODY", "Body"]

# Under this name a response's extensions hold its Body.
BODY: Final = "relay.body"


class Body(httpx2.AsyncByteStream, abc.ABC):
    """A response's body. Closing it twice does nothing."""

    @abc.abstractmethod
    async def read(self) -> bytes:
        """What has arrived, b"" at the end. Raises httpx2.ReadTimeout (silent for too long), ReadError (broken off)."""

    def flow(self, took: Callable[[bytes], None], ended: Callable[[httpx2.HTTPError | None], None]) -> bool:
        """Hand over what comes, as it comes, instead of being read; False where this body can only be read.

        `took` gets each piece, `ended` None at the end or what went wrong, once; neither may raise.
        """
        return False

    def keep(self) -> None:
        """Flow no more: what comes waits to be read."""

    def pause(self) -> None:
        """Let a body that flows stand still; one that is only read does so by itself."""

    def resume(self) -> None: ...

    @property
    @abc.abstractmethod
    def parsed_bytes(self) -> int:
        """What has come and was not read yet, without what the kernel holds."""

    @abc.abstractmethod
    def untimed(self) -> None:
        """Start no more timers for silence: from here on a sweep looks after it."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close now. A connection whose body was read to its end is kept for the next request."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        self.close()
