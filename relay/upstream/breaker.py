"""A circuit breaker: an upstream that fails again and again is left alone for a while, then asked with one request.

The law of this file: a pure state machine; `now` is monotonic seconds.

    closed     requests pass; `threshold` failures in a row open it
    open       none passes for `open_seconds`
    half_open  one passes, and decides: success closes, failure opens again
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Breaker", "State"]

State = Literal["closed", "open", "half_open"]


class Breaker:
    """One upstream's. After each `allow` that was true comes one of `succeeded`, `failed` and `abandoned`.

    >>> breaker = Breaker(threshold=1, open_seconds=5)
    >>> breaker.allow(0), breaker.failed(0), breaker.allow(1), breaker.allow(5), breaker.allow(5)
    (True, None, False, True, False)
    >>> breaker.succeeded(); breaker.state
    'closed'
    """

    __slots__ = ("_failures", "_open_seconds", "_opened_at", "_threshold", "state")

    def __init__(self, threshold: int, open_seconds: float) -> None:
        self._threshold, self._open_seconds = threshold, open_seconds
        self._failures = 0
        self._opened_at = 0.0
        self.state: State = "closed"

    def allow(self, now: float) -> bool:
        """Whether a request may pass now."""
        if self.state == "open" and self.wait(now) <= 0:
            self.state = "half_open"
            return True
        return self.state == "closed"

    def wait(self, now: float) -> float:
        """Seconds until one may pass; 0.0 unless it is open."""
        return max(0.0, self._opened_at + self._open_seconds - now) if self.state == "open" else 0.0

    def succeeded(self) -> None:
        self._failures = 0
        self.state = "closed"

    def failed(self, now: float) -> None:
        self._failures += 1
        if self.state == "half_open" or self._failures >= self._threshold:
            self.state, self._opened_at = "open", now

    def abandoned(self, now: float) -> None:
        """The request that passed has no result: its client left. A probe that did is made up for by the next request."""
        if self.state == "half_open":
            self.state, self._opened_at = "open", now - self._open_seconds
