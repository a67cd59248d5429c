"""A child process of a worker, as the monitor saw it over time."""

from __future__ import annotations

from dataclasses import dataclass

from ..lives import Points, gained_within

__all__ = ["Child"]


@dataclass(frozen=True, slots=True)
class Child:
    """`command` is what it runs, without arguments; `rss` and `pss` are (time in seconds, bytes), in order of time."""

    pid: int
    command: str
    rss: Points
    pss: Points

    @property
    def name(self) -> str:
        return f"{self.command}, pid {self.pid}"

    def gained(self, what: str, start: float) -> float:
        """Bytes more of its `what`, "PSS" or "RSS", than at `start`; all that it has where it was started later."""
        points = self.pss if what == "PSS" and self.pss else self.rss
        within = [point for point in points if point[0] >= start]
        gained = gained_within(within) or 0.0
        born_since = bool(within) and within[0] is points[0] and within[0][0] > start + (within[-1][0] - start) / 4
        return gained + within[0][1] if born_since else gained
