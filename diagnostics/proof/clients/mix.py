"""Clients of every kind that a streaming service meets. What makes them different is how they read:

    Fast         reads whatever comes
    Slow         reads so many bytes a second and leaves the rest to the service
    Leaves       goes away after so many events, without a word
    Resets       breaks its connection (RST) so many seconds after its request, whatever came
    NeverReads   sends its request and never reads a byte

A slow reader's receive buffer is set before it connects: set later, the window is already announced, and the kernel
would take megabytes in the client's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Behavior", "Fast", "Leaves", "Mix", "NeverReads", "Resets", "Slow"]


@dataclass(frozen=True, slots=True)
class Fast:
    """Reads whatever comes."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Reads `bytes_per_second`; `receive_buffer_bytes` is its SO_RCVBUF, which the kernel doubles."""

    bytes_per_second: int
    receive_buffer_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class Leaves:
    """Closes its socket after `after_events` events."""

    after_events: int


@dataclass(frozen=True, slots=True)
class Resets:
    """Reads whatever comes and breaks the connection `after_seconds`: a reset, as from a phone that lost its network."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class NeverReads:
    """Sends its request and reads nothing."""

    receive_buffer_bytes: int = 4096


Behavior = Fast | Slow | Leaves | Resets | NeverReads


@dataclass(frozen=True, slots=True)
class Mix:
    """Who comes, and how many of each. With `again`, a client whose stream has ended opens another one until time is up.

    They come within `arrival_seconds`, not in one instant.
    """

    clients: tuple[tuple[Behavior, int], ...]
    again: bool = False
    arrival_seconds: float = 0.05

    @property
    def streams(self) -> int:
        """How many streams are open together."""
        return sum(count for _, count in self.clients)

    @property
    def slow(self) -> int:
        """How many of them read more slowly than they may be sent to."""
        return sum(count for behavior, count in self.clients if isinstance(behavior, Slow | NeverReads))

    def each(self) -> Iterator[Behavior]:
        for behavior, count in self.clients:
            for _ in range(count):
                yield behavior
