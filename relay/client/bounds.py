"""Bounds and deadlines of a client's connection while no stream uses it.

The law of this file: whatever a client sends or does not send, its connection holds a bounded number of bytes, and every wait
for the client has a deadline. A stream has both by its budget (memory/budget.py) and its time-outs (stream/patience.py);
everything before, after and between two streams is bounded here.

| the wait for | deadline | then |
|---|---|---|
| a request's head | RELAY_HEAD_TIMEOUT_SECONDS | 408; no answer where no byte of the head came |
| its body, whether or not the app reads it | RELAY_REQUEST_BODY_TIMEOUT_SECONDS and GRACE_SECONDS | the connection is reset |
| the client, to take an answer | RELAY_WRITE_TIMEOUT_SECONDS without a byte taken | the connection is reset |
| the next request | RELAY_KEEP_ALIVE_SECONDS (uvicorn's timer) | the connection is closed |

| the connection may hold | most | why that much |
|---|---|---|
| a head | MAX_HEAD_BYTES | nginx allows 32 KiB; browsers with many cookies send about 16 |
| the head's fields | MAX_HEADERS | each is three objects: a head of lines like `a:` would be fifty times its bytes |
| trailers | none are kept | no route uses them |
| a body that is not read | uvicorn's 64 KiB and one recv | then the socket is not read |
| pipelined requests | MAX_PIPELINED | each is a few kilobytes here, for 20 bytes that the client sends |

Incomplete heads and all bodies are also charged to the process's RequestBudget (memory/requests.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from ..memory.requests import RequestBudget

__all__ = ["MAX_HEADERS", "MAX_HEAD_BYTES", "MAX_PIPELINED", "ClientTimeouts", "ConnectionBounds", "Reject", "Waits"]

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 256
# Few clients pipeline, and those send a handful of requests.
MAX_PIPELINED: Final = 16
# So that the route that reads the body comes first: it answers 408 with an error in JSON, at the time-out itself.
GRACE_SECONDS: Final = 5.0


class Reject(Protocol):
    """Called for each refused connection or request: `reason` is a fixed word, `cause` the HTTP parser's message or ""."""

    def __call__(self, reason: str, cause: str = "") -> None: ...


class Watched(Protocol):
    """A connection with a deadline."""

    def give_up_head(self) -> None:
        """Close the connection: the head is overdue."""

    def give_up_body(self) -> bool:
        """Close the connection: the body is overdue. Returns False, and waits anew, where the delay is not the client's."""

    def give_up_unsent(self) -> bool:
        """Close the connection if its client took no byte since the last call. Returns False where some are left to take."""


class Waits:
    """The connections that wait for one kind of thing, with one time-out in seconds, the longest waiting first."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Watched, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def began(self, connection: Watched) -> None:
        """Start the connection's time-out; does nothing where it runs already."""
        if connection not in self._waiting:
            self._waiting[connection] = self._clock()

    def over(self, connection: Watched) -> None:
        """Stop the connection's time-out, if it runs."""
        self._waiting.pop(connection, None)

    def overdue(self) -> Iterator[Watched]:
        """Remove and yield the connections whose time-out has passed."""
        now = self._clock()
        while self._waiting:
            connection, began = next(iter(self._waiting.items()))
            if began > now - self._seconds:
                return
            del self._waiting[connection]
            yield connection


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """The time-outs in seconds: for a request's head, for its body, and for the client to take a byte of an answer."""

    head: float
    body: float
    write: float


class ConnectionBounds:
    """The bounds of all client connections of one server, and the running time-outs.

    most     connections at once; 0: no bound but the number of file descriptors
    budget   to which incomplete heads are charged
    reject   called for each refused connection or request
    """

    def __init__(
        self,
        timeouts: ClientTimeouts,
        *,
        most: int,
        budget: RequestBudget,
        reject: Reject,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = most
        self.budget = budget
        self.reject = reject
        self.heads = Waits(timeouts.head, clock)
        self.bodies = Waits(timeouts.body + GRACE_SECONDS, clock)
        self.unsent = Waits(timeouts.write, clock)

    def forget(self, connection: Watched) -> None:
        """Stop all time-outs of a connection that is lost."""
        for waits in (self.heads, self.bodies, self.unsent):
            waits.over(connection)

    def end_overdue(self) -> None:
        """Close the connections whose time-out has passed; to be called about every second."""
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
