"""Bounds the head of a request: its size, and the time that a client may take to send it.

The law of this file: until a head is whole nobody knows who asks, so no key, rate or budget applies yet. What such a
connection may hold is therefore bounded here: MAX_HEAD_BYTES, for `RELAY_HEAD_TIMEOUT_SECONDS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["MAX_HEAD_BYTES", "Heads"]

# As nginx allows with its default four buffers of 8 KiB, doubled: browsers with many cookies send about 16 KiB.
MAX_HEAD_BYTES: Final = 64 * 1024


class Waiting(Protocol):
    """A connection whose request's head has not come whole."""

    def give_up_head(self) -> None:
        """Close the connection; its client took too long."""


class Heads:
    """The connections of one server that wait for a head, in the order in which they began to wait.

    seconds   how long each may wait
    reject    is told `head_timeout` or `head_too_large` for each connection that is closed
    """

    def __init__(
        self, seconds: float, reject: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._reject = reject
        self._clock = clock
        # By the time of their beginning: all wait equally long, so the first is the first to be overdue.
        self._waiting: dict[Waiting, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def began(self, connection: Waiting) -> None:
        """The connection was opened, or the first byte of its next request has come. Does nothing where it waits already."""
        if connection not in self._waiting:
            self._waiting[connection] = self._clock()

    def over(self, connection: Waiting) -> None:
        """The head is whole, or the connection is gone."""
        self._waiting.pop(connection, None)

    def too_large(self, connection: Waiting) -> None:
        """Its head has become larger than MAX_HEAD_BYTES, and the connection was closed."""
        self.over(connection)
        self._reject("head_too_large")

    def end_overdue(self) -> None:
        """Close those that have waited for too long; to be called about every second."""
        deadline = self._clock() - self._seconds
        while self._waiting:
            connection, began = next(iter(self._waiting.items()))
            if began > deadline:
                return
            del self._waiting[connection]
            self._reject("head_timeout")
            connection.give_up_head()
