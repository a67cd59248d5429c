"""Watches a service while a window is open on it, and says when the window must be cut short.

A tracer that is too much for a service shows as a loop that comes late: every stream waits that long. One late moment
is not a reason (a garbage collection is one); lateness that stays is.
"""

from __future__ import annotations

from typing import Any

__all__ = ["LATE_SECONDS", "LOOK_SECONDS", "WindowWatch"]

LOOK_SECONDS = 1.0
# Lateness must last for so long before a window is cut short.
LATE_SECONDS = 2.0


class WindowWatch:
    """Judges one window, look by look; times are monotonic seconds."""

    def __init__(self, max_lag_ms: float) -> None:
        self._max_lag_ms = max_lag_ms
        self._late_since: float | None = None
        self.max_lag_ms = 0.0

    def look(self, now: float, told: dict[str, Any] | None) -> str | None:
        """Why the window must end now, None to go on. `told` is the agent's answer, None where it gave none in time."""
        lag_ms = None if told is None else float(told["lag_ms"])
        self.saw(told)
        if lag_ms is not None and lag_ms <= self._max_lag_ms:
            self._late_since = None
            return None
        self._late_since = now if self._late_since is None else self._late_since
        late = now - self._late_since
        if late < LATE_SECONDS:
            return None
        lag = "its agent does not answer" if lag_ms is None else f"its loop is {lag_ms:.0f} ms late"
        return f"the service did not keep up for {late:.1f} s: {lag}, the limit is {self._max_lag_ms:g} ms"

    def saw(self, told: dict[str, Any] | None) -> None:
        """Keep the largest lag that was told of."""
        if told is not None:
            self.max_lag_ms = max(self.max_lag_ms, float(told["max_lag_ms"]))
