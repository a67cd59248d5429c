"""Whether memory grows, how fast, and when it reaches its limit: robust against random walks and filling caches.

Memory readings follow each other closely: an interval that takes them for independent accuses well-behaved programs half
the time. So the readings are cut into blocks, and only the blocks count:

    slope      Theil and Sen: the median of the slopes between all pairs of block medians (P. K. Sen, Estimates of the
               regression coefficient based on Kendall's tau, JASA 63, 1968). A single step is one block among many.
    interval   of the median rise from one block to the next, by Wilcoxon's signed ranks over the rises (Hodges and Lehmann,
               Estimates of location based on rank tests, Ann. Math. Stat. 34, 1963). It supposes that without a trend a rise
               is as likely as a fall of the same size. That holds for stationary noise and for a random walk alike, which is
               what resident memory looks like; noise that is stationary only makes the interval wider than it need be.
               Rises of neighbouring blocks of a random walk are correlated, by 1/4 for means; the variance of the
               rank sum is multiplied by 1.5 for it.
    growing    the whole interval is above zero, and the later half rises at half the whole's slope or more: what rose and
               then stopped has settled. The second condition can only take accusations back.
    warm-up    the first quarter of a process's life, ten minutes at most, is not judged: imports, pools and caches fill then.
               It is declared and not found in the data, because looking for the best start is a second guess that needs
               a correction of its own.

A worker that is replaced again and again (max_requests) has many short lives instead of a long one. `pooled` judges them
together: blocks are cut and rises taken within each life, never across two lives, so that the fall at a replacement hides
nothing. The rises of all lives are pooled into one Wilcoxon statistic.

One test errs no more often than `level` says, both sides together; a caller that tests every second and acts on the first
claim errs more often.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, combinations_with_replacement, pairwise
from statistics import NormalDist, median
from typing import Any

__all__ = ["BLOCKS", "WINDOWS", "Trend", "pooled", "seconds_to_limit", "telling", "theil_sen", "trend", "warm_up_ends"]

# Seconds. A new leak shows in the shortest window long before the others, a slow one only in the longest.
WINDOWS = (120.0, 600.0, 3600.0)
BLOCKS = 12
# With fewer readings in a block its median may be a single outlier.
_LEAST_IN_BLOCK = 3
# Factor for the variance of Wilcoxon's statistic over rises whose neighbours are correlated by 1/4: 1 + 2 x 1/4.
_CORRELATION = 1.5
# A life of fewer blocks than this does not show whether its rise goes on.
_LEAST_BLOCKS = 3
_WARM_UP_SHARE = 0.25
_WARM_UP_SECONDS = 600.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Trend:
    """The trend of a series. Slopes are units of the series a second.

    state      growing; settled (rose, but its later half did not go on); shrinking; not_growing (the interval has zero);
               unknown (too few readings, or a gap of a whole block)
    low, high  the interval of `slope` at 1 - level; None, as the slope, where the state is unknown
    seconds    length of the time judged; readings: their number
    since      the time of the first reading that was judged
    """

    state: str
    slope: float | None
    low: float | None
    high: float | None
    level: float
    seconds: float
    readings: int
    since: float | None
    last: float | None

    @property
    def growing(self) -> bool:
        return self.state == "growing"

    def per(self, count: float) -> tuple[float, float, float] | None:
        """(slope, low, high) per event, for `count` events in the time judged; None where there were none."""
        if self.slope is None or self.low is None or self.high is None or count <= 0:
            return None
        factor = self.seconds / count
        return self.slope * factor, self.low * factor, self.high * factor

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def warm_up_ends(started: float, now: float) -> float:
    """The end of the warm-up of a process that started at `started`, judged at `now` (same clock, seconds)."""
    return started + min(_WARM_UP_SECONDS, _WARM_UP_SHARE * max(0.0, now - started))


def trend(points: Points, *, level: float = 0.05, since: float = -math.inf) -> Trend:
    """The trend of (time in seconds, value) readings, in order of time, none before `since`.

    level   the probability that a series without a trend is called growing or shrinking. Raises ValueError unless
            0.002 <= level < 1: eleven rises allow no smaller one.
    """
    _check(level)
    judged = [point for point in points if point[0] >= since]
    if not judged:
        return Trend("unknown", None, None, None, level, 0.0, 0, None, None)
    first, last = judged[0], judged[-1]
    span = last[0] - first[0]
    blocks = _blocks(judged, first[0], span, BLOCKS)
    if blocks is None:
        return Trend("unknown", None, None, None, level, span, len(judged), first[0], last[1])
    slope = theil_sen(blocks)
    rises = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairwise(blocks)]
    low, high = _interval(rises, level)
    low, high = min(low, slope), max(high, slope)
    goes_on = theil_sen(blocks[BLOCKS // 2 :]) >= slope / 2
    return Trend(_state(low, high, goes_on), slope, low, high, level, span, len(judged), first[0], last[1])


def telling(points: Points, *, level: float, since: float, now: float) -> tuple[float, Trend]:
    """The most informative of WINDOWS, in seconds, and the trend in it: the shortest in which the series grows, else the
    longest that could be judged. Each ends at `now` and begins no earlier than `since`: seconds, on the clock of the points.

    level   of each window; the error probabilities of all windows add up
    """
    most: tuple[float, Trend] | None = None
    for window in WINDOWS:
        candidate = trend(points, level=level, since=max(since, now - window))
        if most is None or candidate.state != "unknown":
            most = window, candidate
        if candidate.growing:
            break
    assert most is not None
    return most


def pooled(lives: Sequence[Points], *, level: float = 0.05) -> Trend:
    """The trend within several lives of one worker: readings of each in order of time, without its warm-up.

    A life with too few readings for three blocks, or with a gap, is left out; the others must give as many rises as one
    long life does. `seconds` is the time judged over all lives, `since` the beginning of the first. Raises as `trend` does.
    """
    _check(level)
    long = [life for life in lives if len(life) >= _LEAST_BLOCKS * _LEAST_IN_BLOCK]
    most_blocks = max(_LEAST_BLOCKS, math.ceil((BLOCKS - 1) / len(long)) + 1) if long else 0
    cut: list[tuple[Points, list[tuple[float, float]]]] = []
    for life in long:
        count = min(most_blocks, len(life) // _LEAST_IN_BLOCK)
        blocks = _blocks(life, life[0][0], life[-1][0] - life[0][0], count)
        while blocks is None and count > _LEAST_BLOCKS:  # readings are not aligned with the blocks
            count -= 1
            blocks = _blocks(life, life[0][0], life[-1][0] - life[0][0], count)
        if blocks is not None:
            cut.append((life, blocks))
    seconds = sum(life[-1][0] - life[0][0] for life, _ in cut)
    readings = sum(len(life) for life, _ in cut)
    rises = [(y2 - y1) / (x2 - x1) for _, blocks in cut for (x1, y1), (x2, y2) in pairwise(blocks)]
    since, last = (cut[0][0][0][0], cut[-1][0][-1][1]) if cut else (None, None)
    if len(rises) < BLOCKS - 1:
        return Trend("unknown", None, None, None, level, seconds, readings, since, last)
    slope = median(_slopes(blocks for _, blocks in cut))
    low, high = _interval(rises, level)
    low, high = min(low, slope), max(high, slope)
    goes_on = median(_slopes(blocks[len(blocks) // 2 :] for _, blocks in cut)) >= slope / 2
    return Trend(_state(low, high, goes_on), slope, low, high, level, seconds, readings, since, last)


def seconds_to_limit(trend: Trend, used: float, limit: float | None) -> float | None:
    """Seconds until `used`, rising at the trend's slope, reaches `limit`, at least 0. None: not growing, or no limit."""
    if limit is None or not trend.growing or not trend.slope:
        return None
    return max(0.0, limit - used) / trend.slope


def theil_sen(points: Points) -> float:
    """The median of the slopes between all pairs of points with different x. Raises ValueError where there is no such pair."""
    slopes = _slopes([points])
    if not slopes:
        raise ValueError("a slope needs two different x")
    return median(slopes)


def _check(level: float) -> None:
    if not 0.002 <= level < 1:
        raise ValueError(f"level is {level!r}, it must be from 0.002 to below 1")


def _slopes(series: Iterable[Points]) -> list[float]:
    """The slopes between all pairs of points with different x, within each series."""
    return [(y2 - y1) / (x2 - x1) for points in series for (x1, y1), (x2, y2) in combinations(points, 2) if x2 != x1]


def _blocks(points: Points, start: float, span: float, count: int) -> list[tuple[float, float]] | None:
    """The median time and value of each of `count` equal stretches of time; None where one has too few readings."""
    if span <= 0:
        return None
    blocks: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    for point in points:
        blocks[min(count - 1, int((point[0] - start) / span * count))].append(point)
    if min(map(len, blocks)) < _LEAST_IN_BLOCK:
        return None
    return [(median(time for time, _ in block), median(value for _, value in block)) for block in blocks]


def _state(low: float, high: float, goes_on: bool) -> str:
    if low > 0:
        return "growing" if goes_on else "settled"
    return "shrinking" if high < 0 else "not_growing"


def _interval(rises: Sequence[float], level: float) -> tuple[float, float]:
    """Hodges and Lehmann's interval: order statistics of the averages of all pairs, each rise with itself included."""
    n = len(rises)
    averages = sorted((a + b) / 2 for a, b in combinations_with_replacement(rises, 2))
    deviation = math.sqrt(_CORRELATION * n * (n + 1) * (2 * n + 1) / 24)
    outside = n * (n + 1) / 4 - NormalDist().inv_cdf(1 - level / 2) * deviation
    index = max(0, math.floor(outside))
    return averages[index], averages[-1 - index]
