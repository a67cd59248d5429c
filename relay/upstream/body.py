"""An upstream's response: its status, its headers, and a body that is read, or passed to a callback piece by piece.

The law of this file: a body is an object with `read` and `close`, not nested async generators, so that its stream can close it
at any moment without an await, also in the middle of a cancellation. All its failures are the relay's own errors (errors.py).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UpstreamError

__all__ = ["Body", "OnEnd", "OnPiece", "Response"]

# Callbacks of a body that flows: with each piece; and once at its end, with the error or with None. Neither may raise.
OnPiece = Callable[[bytes], None]
OnEnd = Callable[[UpstreamError | None], None]


class Body(abc.ABC):
    """A response's body. Closing it twice does nothing."""

    __slots__ = ()

    @abc.abstractmethod
    async def read(self) -> bytes:
        """Wait for bytes and return all that have come; b"" at the end.

        Raises UpstreamTimeoutError (silent for too long), UpstreamUnreachableError (broken off), UpstreamProtocolError.
        """

    def flow(self, on_piece: OnPiece, on_end: OnEnd) -> bool:
        """From now on call `on_piece` with each piece as it comes, in place of `read`; False where a body can only be read."""
        return False

    def keep(self) -> None:  # noqa: B027  # nothing to do where a body is only read
        """Stop the calls that `flow` began: bytes that come wait for `read` again."""

    def pause(self) -> None:  # noqa: B027  # nothing to do where a body is only read
        """Stop reading the socket of a body that flows (backpressure); one that is only read stops by itself."""

    def resume(self) -> None:  # noqa: B027  # nothing to do where a body is only read
        """Read the socket again."""

    @property
    @abc.abstractmethod
    def parsed_bytes(self) -> int:
        """Bytes of the body that this process holds and `read` has not returned yet."""

    @property
    def at_end(self) -> bool:
        """Whether all of the body was read. False where that is unknown before the next `read`."""
        return False

    def untimed(self) -> None:  # noqa: B027  # nothing to do where no timer runs
        """Start no more timers for silence: from here on the sweep enforces the time-outs (stream/sweep.py)."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the body now: its connection is kept for the next request if the body was read to its end, else closed."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose head has come.

    headers   by their names in lower case, the last of each name; Latin-1, which has a character for every byte, so that they
              are forwarded byte for byte
    """

    status: int
    headers: dict[str, str]
    body: Body
