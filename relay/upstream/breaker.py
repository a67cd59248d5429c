"""A circuit breaker: an upstream that fails again and again gets no requests for a while, then one as a probe.

The law of this file: a pure state machine; `now` is monotonic seconds.

    closed     requests pass; `threshold` failures in a row open the breaker
    open       no request passes for `open_seconds`
    half_open  one request passes as a probe: its success closes the breaker, its failure opens it again
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Breaker", "State"]

State = Literal["closed", "open", "half_open"]


class Breaker:
    """The breaker of one upstream. After each `allow` that returned True, call one of `succeeded`, `failed`, `abandoned`.

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
        """Seconds until a request may pass; 0.0 unless the breaker is open."""
        return max(0.0, self._opened_at + self._open_seconds - now) if self.state == "open" else 0.0

    def succeeded(self) -> None:
        self._failures = 0
        self.state = "closed"

    def failed(self, now: float) -> None:
        self._failures += 1
        if self.state == "half_open" or self._failures >= self._threshold:
            self.state, self._opened_at = "open", now

    def abandoned(self, now: float) -> None:
        """The request has no result, since its client left. If it was the probe, the next request is one."""
        if self.state == "half_open":
            self.state, self._opened_at = "open", now - self._open_seconds
