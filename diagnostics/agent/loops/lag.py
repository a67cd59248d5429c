"""The lag of the service's event loops: the seconds from scheduling a callback to its run.

The agent's thread schedules a callback on each running loop (`call_soon_threadsafe`), a ping, and notes when it ran. It never
waits for it: an unanswered ping counts with its age, so that a stuck loop shows at once, and not when it is free again. One
ping follows each request that the agent has answered, so that the time of answering is not taken for lag, and ten a second
are sent while a window is open. A ping is a few microseconds on the loop.
"""

from __future__ import annotations

import time

from ..histogram import LAG_SECONDS, Histogram
from .running import running_loops

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Callable
    from typing import Any

__all__ = ["LoopLag"]


class _Ping:
    """One callback scheduled on a loop. `lag`, in seconds, is that of the loop's previous ping until this one is answered."""

    __slots__ = ("answered", "counted", "lag", "sent")

    def __init__(self, sent: float, lag: float) -> None:
        self.sent = sent
        self.lag = lag
        self.answered = self.counted = False


class LoopLag:
    """The lag of this process's loops; all methods but `_answer` are for the agent's thread.

    histogram   lag in seconds of every ping answered since the agent started
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        loops: Callable[[], list[asyncio.AbstractEventLoop]] = running_loops,
    ) -> None:
        self._clock = clock
        self._loops = loops
        self._pings: dict[int, _Ping] = {}
        self._last = 0.0
        self._max = 0.0
        self.histogram = Histogram(LAG_SECONDS)

    def begin(self) -> None:
        """A window begins: reset the last and the maximal lag. The histogram stays."""
        self._gather()
        self._pings.clear()
        self._last = self._max = 0.0

    def ping(self) -> None:
        """Send a ping to each loop that has answered the one before; never waits."""
        self._gather()
        running = self._loops()
        for gone in self._pings.keys() - {id(loop) for loop in running}:
            del self._pings[gone]  # a loop that no longer runs answers no ping
        for loop in running:
            ping = self._pings.get(id(loop))
            if ping is None or ping.answered:
                self._pings[id(loop)] = sent = _Ping(self._clock(), ping.lag if ping else 0.0)
                try:
                    loop.call_soon_threadsafe(self._answer, sent)
                except RuntimeError:  # the loop closed meanwhile
                    del self._pings[id(loop)]

    @property
    def seconds(self) -> float | None:
        """The largest lag of all loops: of the last answered ping, or the age of an unanswered one; None where no loop runs."""
        self._gather()
        return self._last if self._pings else None

    @property
    def pending_seconds(self) -> float:
        """The age of the oldest unanswered ping; 0 where all are answered."""
        now = self._clock()
        return max((now - ping.sent for ping in self._pings.values() if not ping.answered), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """The lag now, as `seconds` has it, and the maximum since `begin`, in milliseconds."""
        self._gather()
        return {"lag_ms": round(1000 * self._last, 3), "max_lag_ms": round(1000 * self._max, 3)}

    def _answer(self, ping: _Ping) -> None:
        """Runs on the loop's thread."""
        ping.lag = self._clock() - ping.sent
        ping.answered = True

    def _gather(self) -> None:
        now = self._clock()
        for ping in self._pings.values():
            if ping.answered and not ping.counted:
                ping.counted = True
                self.histogram.observe(ping.lag)
        # A late loop answers rarely: an unanswered ping counts once its age exceeds the last measured lag.
        self._last = max(
            (ping.lag if ping.answered else max(ping.lag, now - ping.sent) for ping in self._pings.values()),
            default=0.0,
        )
        self._max = max(self._max, self._last)
