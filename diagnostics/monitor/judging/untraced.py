"""Readings without the time in which a tracer of ours ran: what it took, and left behind, is no growth of the service.

A window of memray's takes tens of MiB (its module, its tables) and leaves some of them: in the readings that is a step. So the
time of the window is cut out, and what was read before it is moved to what was read after it: later by the time that is cut
out, and higher by the step. What the service itself gained in that time is not counted either, which makes growth less by some
per cent, and never more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median

from ...analysis.trend import Points

__all__ = ["without_tracers"]

# Readings on each side of a window whose median is the level there.
_LEVEL = 5
# All else is only moved in time: what is held or there at a moment (buffers, tasks, processes), and limits.
_MOVED_UP = frozenset(
    {
        "rss_bytes", "pss_bytes", "private_bytes", "mapped_bytes", "shared_bytes", "in_use_bytes",
        "python_live_bytes", "malloc_live_bytes", "python_large_blocks", "cgroup_working_bytes", "streams_finished_total",
        "gc_collections_1", "gc_collections_2",
    }
)  # fmt: skip


def without_tracers(
    series: Mapping[str, Points], since: float, windows: Iterable[tuple[float, float]]
) -> tuple[dict[str, Points], float]:
    """The series without what was read in `windows`, and `since` moved as they are.

    series    recorded readings by name, each (time, value) in order of time
    since     the end of the warm-up; times are seconds since the epoch, as all here
    windows   (beginning, end) of each tracer's window, in order of time and apart; an end of infinity: it is open
    """
    told: dict[str, Points] = dict(series)
    for begin, end in windows:
        if math.isinf(end):
            told = {name: [point for point in points if point[0] < begin] for name, points in told.items()}
            continue
        gone = end - begin
        told = {name: _cut(points, begin, end, moved_up=name in _MOVED_UP) for name, points in told.items()}
        since = since + gone if since < begin else max(since, end)
    return told, since


def _cut(points: Points, begin: float, end: float, *, moved_up: bool) -> Points:
    before = [point for point in points if point[0] < begin]
    after = [point for point in points if point[0] > end]
    if not before or not after:
        return [*before, *after]
    step = 0.0
    if moved_up:
        step = median(value for _, value in after[:_LEVEL]) - median(value for _, value in before[-_LEVEL:])
    return [(time + end - begin, value + max(0.0, step)) for time, value in before] + after
