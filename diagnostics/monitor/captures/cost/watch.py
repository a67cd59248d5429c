"""Watches a service while a window is open, and decides when the window must be cut short.

A tracer that costs too much shows as event loop lag: every stream waits that long. A single late callback is no reason (a
garbage collection makes one); lasting lag is. Before the loop lags, it is busy all the time, and that is a reason, too: a
service with a thread that never sleeps has more work than it can do, and its queues grow.
"""

from __future__ import annotations

from typing import Any

from ....analysis.cost import NO_REST

__all__ = ["LATE_SECONDS", "LOOK_SECONDS", "WindowWatch"]

LOOK_SECONDS = 1.0
# Lag, or a thread that never sleeps, must last this long before a window is cut short.
LATE_SECONDS = 2.0


class WindowWatch:
    """Judges one window, reading by reading; times are monotonic seconds.

    max_lag_ms   the largest lag of the loop that is allowed
    judge_load   whether a thread that never sleeps ends the window; False where the service was that busy before it
    """

    def __init__(self, max_lag_ms: float, *, judge_load: bool = True) -> None:
        self._max_lag_ms = max_lag_ms
        self._judge_load = judge_load
        self._late_since: float | None = None
        self._busy_since: float | None = None
        self.max_lag_ms = 0.0

    def look(self, now: float, answer: dict[str, Any] | None, busy_share: float | None = None) -> str | None:
        """Why the window must end now, a sentence; None to go on.

        answer       the agent's answer to `watch`, None where there was none in time
        busy_share   the share of the time since the last reading in which a thread was busy; None: unknown
        """
        self.note_lag(answer)
        return self._too_late(now, answer) or self._too_busy(now, busy_share)

    def _too_late(self, now: float, answer: dict[str, Any] | None) -> str | None:
        lag_ms = None if answer is None else float(answer["lag_ms"])
        if lag_ms is not None and lag_ms <= self._max_lag_ms:
            self._late_since = None
            return None
        self._late_since = now if self._late_since is None else self._late_since
        late = now - self._late_since
        if late < LATE_SECONDS:
            return None
        lag = "its agent does not answer" if lag_ms is None else f"its loop is {lag_ms:.0f} ms late"
        return f"the service did not keep up for {late:.1f} s: {lag}, the limit is {self._max_lag_ms:g} ms"

    def _too_busy(self, now: float, busy_share: float | None) -> str | None:
        if not self._judge_load or busy_share is None or busy_share < NO_REST:
            self._busy_since = None
            return None
        self._busy_since = now if self._busy_since is None else self._busy_since
        busy = now - self._busy_since
        if busy < LATE_SECONDS:
            return None
        share = f"{100 * busy_share:.0f} % of the time"
        return f"the service had no rest for {busy:.1f} s: a thread of it worked, or waited for a core, {share}"

    def note_lag(self, answer: dict[str, Any] | None) -> None:
        """Keep the largest lag that the agent has reported."""
        if answer is not None:
            self.max_lag_ms = max(self.max_lag_ms, float(answer["max_lag_ms"]))
