"""What an upstream's response is here: its status, its headers, and a body that is read, or handed over as it comes.

The law of this file: a body is an object with `read` and `close`, not nested async generators, so that it is closed where and
when its stream says, without an await, also in the middle of a cancellation. Whatever goes wrong with it is one of the relay's
own errors (errors.py).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UpstreamError

__all__ = ["Body", "Ended", "Response", "Took"]

# Told each piece of a body that flows, and, once, its end or what went wrong. Neither may raise.
Took = Callable[[bytes], None]
Ended = Callable[[UpstreamError | None], None]


class Body(abc.ABC):
    """A response's body. Closing it twice does nothing."""

    __slots__ = ()

    @abc.abstractmethod
    async def read(self) -> bytes:
        """What has arrived; b"" at the end. Raises UpstreamTimeoutError (silent for too long), UpstreamUnreachableError."""

    def flow(self, took: Took, ended: Ended) -> bool:
        """Hand over what comes, as it comes, instead of being read; False where this body can only be read."""
        return False

    def keep(self) -> None:  # noqa: B027  # nothing to do where a body is only read
        """Flow no more: what comes waits to be read."""

    def pause(self) -> None:  # noqa: B027  # nothing to do where a body is only read
        """Let a body that flows stand still; one that is only read does so by itself."""

    def resume(self) -> None:  # noqa: B027  # nothing to do where a body is only read
        """Let it flow again."""

    @property
    @abc.abstractmethod
    def parsed_bytes(self) -> int:
        """What has come and was not read yet, without what the kernel holds."""

    def untimed(self) -> None:  # noqa: B027  # nothing to do where no timer runs
        """Start no more timers for silence: from here on a sweep looks after the stream."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close now. A connection whose body was read to its end is kept for the next request."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose head has come.

    headers   by their names in lower case, the last of each name, decoded as Latin-1: it has a character for every byte, so
              that what is sent on is what came
    """

    status: int
    headers: dict[str, str]
    body: Body
