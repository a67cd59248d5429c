"""What requests hold before they are answered: heads that are not whole and bodies, in one budget of the process.

The law of this file: a byte of a request is charged here as long as the relay holds it, from the moment in which it came until
its upstream has answered, or nobody wants the answer any more; what does not fit is not taken. A body's charge goes with its
bytes (`HeldBytes`): whoever keeps them, for whatever reason, keeps the charge. Nobody's announcement is charged, only what
came: else a header that says 16 MiB would take the room of 16 MiB.

A quarter of the budget is kept for small bodies, which most are: a few callers with large ones, who may send them as slowly as
their deadline allows, cannot keep all others out.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SMALL_BODY_BYTES", "HeldBytes", "Holding", "RequestBudget"]

# A long conversation without pictures.
SMALL_BODY_BYTES: Final = 64 * 1024
_KEPT_FOR_SMALL: Final = 4  # one part in so many


class RequestBudget:
    """The bytes that all requests of a process hold; `total_bytes` at most.

    >>> budget = RequestBudget(1024 * 1024)
    >>> large, small = Holding(budget), Holding(budget)
    >>> large.grow(800_000), large.grow(700_000), large.grow(100_000), small.grow(1000), budget.bodies
    (False, True, False, True, 701000)
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.heads = self.bodies = 0

    def grow_head(self, nbytes: int) -> bool:
        """Charge more bytes of a head that is not whole; False, and charge nothing, where there is no room for them."""
        if self.heads + self.bodies + nbytes > self.total_bytes:
            return False
        self.heads += nbytes
        return True

    def release_head(self, nbytes: int) -> None:
        """The head is whole, or its connection gone."""
        self.heads -= nbytes

    def has_room(self, nbytes: int, of: int) -> bool:
        """Whether so many bytes more fit, of a body that then has `of` bytes."""
        kept = 0 if of <= SMALL_BODY_BYTES else self.total_bytes // _KEPT_FOR_SMALL
        return self.heads + self.bodies + nbytes <= self.total_bytes - kept


class Holding:
    """What one request's body is charged with, until it is released or nobody has it any more."""

    __slots__ = ("_budget", "nbytes")

    def __init__(self, budget: RequestBudget) -> None:
        self._budget = budget
        self.nbytes = 0

    def grow(self, nbytes: int) -> bool:
        """Charge more bytes; False, and charge nothing, where there is no room for them."""
        if not self._budget.has_room(nbytes, self.nbytes + nbytes):
            return False
        self._budget.bodies += nbytes
        self.nbytes += nbytes
        return True

    def release(self) -> None:
        """The bytes are dropped."""
        self._budget.bodies -= self.nbytes
        self.nbytes = 0

    def __del__(self) -> None:
        self.release()


class HeldBytes(bytes):
    """A whole body, which is charged for as long as anybody has it.

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
        """The body that came in these parts, for which `holding` was grown."""
        body = cls(parts[0] if len(parts) == 1 else b"".join(parts))
        body.holding = holding
        return body
