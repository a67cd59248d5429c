"""The process's budget for requests that are not answered yet: the bytes of their incomplete heads and their bodies.

The law of this file: a byte of a request is charged as long as the relay holds it, from its arrival until the upstream has
answered or the request is dropped; bytes that do not fit are refused. A body's charge is tied to its bytes object
(`HeldBytes`): as long as it is referenced, it is charged. Only bytes that came are charged, not a Content-Length: else a
header that says 16 MiB would take the room of 16 MiB.

A quarter of the budget is kept for small bodies, which are the most: a few callers with large bodies, which they may send as
slowly as their deadline allows, cannot keep all others out.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SMALL_BODY_BYTES", "HeldBytes", "Holding", "RequestBudget"]

# Enough for a long conversation without images.
SMALL_BODY_BYTES: Final = 64 * 1024
_KEPT_FOR_SMALL: Final = 4  # one part in four of the budget


class RequestBudget:
    """The bytes that all requests of a process hold, `heads` and `bodies`; `total_bytes` together at most.

    >>> budget = RequestBudget(1024 * 1024)
    >>> large, small = Holding(budget), Holding(budget)
    >>> large.grow(800_000), large.grow(700_000), large.grow(100_000), small.grow(1000), budget.bodies
    (False, True, False, True, 701000)
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.heads = self.bodies = 0

    def grow_head(self, nbytes: int) -> bool:
        """Charge more bytes of an incomplete head. Returns False, and charges nothing, where there is no room for them."""
        if self.heads + self.bodies + nbytes > self.total_bytes:
            return False
        self.heads += nbytes
        return True

    def release_head(self, nbytes: int) -> None:
        """Take the charge of a head back: the head is complete, or its connection lost."""
        self.heads -= nbytes

    def has_room(self, nbytes: int, of: int) -> bool:
        """Whether `nbytes` more fit, for a body that then has `of` bytes in all."""
        reserved = 0 if of <= SMALL_BODY_BYTES else self.total_bytes // _KEPT_FOR_SMALL
        return self.heads + self.bodies + nbytes <= self.total_bytes - reserved


class Holding:
    """The charge of one request's body, in bytes, until `release` or until the object is freed."""

    __slots__ = ("_budget", "nbytes")

    def __init__(self, budget: RequestBudget) -> None:
        self._budget = budget
        self.nbytes = 0

    def grow(self, nbytes: int) -> bool:
        """Charge more bytes. Returns False, and charges nothing, where there is no room for them."""
        if not self._budget.has_room(nbytes, self.nbytes + nbytes):
            return False
        self._budget.bodies += nbytes
        self.nbytes += nbytes
        return True

    def release(self) -> None:
        """Take the charge back: the bytes are dropped."""
        self._budget.bodies -= self.nbytes
        self.nbytes = 0

    def __del__(self) -> None:
        self.release()


class HeldBytes(bytes):
    """The bytes of a whole body, charged to the budget for as long as the object exists.

    >>> budget = RequestBudget(1024 * 1024)
    >>> holding = Holding(budget)
    >>> holding.grow(3)
    True
    >>> body = HeldBytes.of([b"ab", b"c"], holding)
    >>> part = memoryview(body)[1:]
    >>> del body, holding
    >>> budget.bodies, part.release(), budget.bodies
    (3, None, 0)
    """

    holding: Holding

    @classmethod
    def of(cls, parts: list[bytes], holding: Holding) -> HeldBytes:
        """Join the parts of a body, whose bytes are charged to `holding` already."""
        body = cls(parts[0] if len(parts) == 1 else b"".join(parts))
        body.holding = holding
        return body
