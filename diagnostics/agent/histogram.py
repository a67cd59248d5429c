"""A histogram that a hot path can afford: one bisect and one addition."""

from __future__ import annotations

import time
from bisect import bisect_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["BYTES", "GAP_SECONDS", "LAG_SECONDS", "LATENCY_SECONDS", "STREAM_SECONDS", "Histogram"]

# Upper bounds in seconds. The first event of a language model takes 0.1 to 30 s, gaps between events 5 ms to seconds.
LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
GAP_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
# A loop that nothing blocks runs a callback within a millisecond; beside a busy thread it waits up to 5 ms for the GIL.
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STREAM_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
BYTES = (1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0)


class Histogram:
    """Counts of observations per bucket (not cumulative) and their sum; `counts[-1]` counts those above all bounds.

    One thread observes, any thread may read; a reader is at most one observation behind. Each bucket keeps its last
    observation with a trace id as an exemplar (OpenMetrics): (trace id, value, wall-clock time).
    """

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[str, float, float]] = {}

    def observe(self, value: float, trace_id: str | None = None) -> None:
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if trace_id is not None:
            self.exemplars[bucket] = (trace_id, value, time.time())

    def to_json(self) -> dict[str, Any]:
        """`exemplars`: [index of the bucket, trace id, value, wall-clock time] of each bucket that has one."""
        exemplars = [[bucket, *exemplar] for bucket, exemplar in list(self.exemplars.items())]
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.total, "exemplars": exemplars}
