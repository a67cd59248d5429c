"""Bounds what a client's connection may hold, and how long its client is waited for, outside of a stream.

The law of this file: whatever a client sends or does not send, its connection holds a fixed number of bytes, and whatever it is
waited for has a deadline. A stream has both by its budget (memory/budget.py) and its patience (stream/patience.py); everything
before, after and between is bounded here.

| what is waited for | longest | then |
|---|---|---|
| a request's head | RELAY_HEAD_TIMEOUT_SECONDS | 408, or silence where nothing of it came |
| its body, also where nobody reads it | RELAY_REQUEST_BODY_TIMEOUT_SECONDS and GRACE_SECONDS | the connection is reset |
| room for an answer, and its being taken before a close | RELAY_WRITE_TIMEOUT_SECONDS without a byte taken | it is reset |
| the next request | RELAY_KEEP_ALIVE_SECONDS (uvicorn's timer) | it is closed |

| what it may hold | most | why that much |
|---|---|---|
| a head | MAX_HEAD_BYTES | nginx allows 32 KiB; browsers with many cookies send about 16 |
| its fields | MAX_HEADERS | each is three objects: a head of lines like `a:` would be fifty times its bytes |
| trailers | none are kept | nobody asks for them |
| a body that is not read | uvicorn's 64 KiB and one recv | then the socket is not read |
| requests behind the present one | MAX_PIPELINED | each is a few kilobytes, of 20 bytes that the client sends |

All heads that are not whole, and all bodies, are charged to the process's RequestBudget (memory/requests.py) besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from ..memory.requests import RequestBudget

__all__ = ["MAX_HEADERS", "MAX_HEAD_BYTES", "MAX_PIPELINED", "ConnectionBounds", "Patience", "Reject", "Waits"]

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 256
# Clients that pipeline send a handful; nearly none does.
MAX_PIPELINED: Final = 16
# The route that reads a body answers 408 first, in the words of its API.
GRACE_SECONDS: Final = 5.0


class Reject(Protocol):
    """Is told of what was not let in: a fixed word, and what a parser said of it where it was a parser's finding."""

    def __call__(self, reason: str, cause: str = "") -> None: ...


class Watched(Protocol):
    """A connection that is waited for."""

    def give_up_head(self) -> None:
        """Close it: the head has not come."""

    def give_up_body(self) -> bool:
        """Close it: the body has not come. False where that is not the client's doing, and it is waited for anew."""

    def give_up_unsent(self) -> bool:
        """Close it if it has taken no byte since it was last asked; False where it has, and something is left."""


class Waits:
    """Connections that are waited for equally long, in the order in which that began: the first is the first to be overdue."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Watched, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def began(self, connection: Watched) -> None:
        """It is waited for from now on. Does nothing where it is already."""
        if connection not in self._waiting:
            self._waiting[connection] = self._clock()

    def over(self, connection: Watched) -> None:
        """It is waited for no more."""
        self._waiting.pop(connection, None)

    def overdue(self) -> Iterator[Watched]:
        """Those that were waited for too long, each of which is forgotten."""
        now = self._clock()
        while self._waiting:
            connection, began = next(iter(self._waiting.items()))
            if began > now - self._seconds:
                return
            del self._waiting[connection]
            yield connection


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a client is waited for: its head, its body, and its taking what it was sent."""

    head: float
    body: float
    write: float


class ConnectionBounds:
    """What holds for all client connections of one server, and those of them that are waited for.

    most     connections at once; 0: as many as there are descriptors
    budget   that heads are charged to
    reject   is told a fixed word for each connection or request that is refused here
    """

    def __init__(
        self,
        patience: Patience,
        *,
        most: int,
        budget: RequestBudget,
        reject: Reject,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = most
        self.budget = budget
        self.reject = reject
        self.heads = Waits(patience.head, clock)
        self.bodies = Waits(patience.body + GRACE_SECONDS, clock)
        self.unsent = Waits(patience.write, clock)

    def forget(self, connection: Watched) -> None:
        """The connection is gone."""
        for waits in (self.heads, self.bodies, self.unsent):
            waits.over(connection)

    def end_overdue(self) -> None:
        """Close those that have been waited for too long; to be called about every second."""
        for connection in self.heads.overdue():
            self.reject("head_timeout")
            connection.give_up_head()
        for connection in tuple(self.bodies.overdue()):
            if connection.give_up_body():
                self.reject("body_timeout")
            else:
                self.bodies.began(connection)
        for connection in tuple(self.unsent.overdue()):
            if not connection.give_up_unsent():
                self.unsent.began(connection)
