"""An interval for the slope of a memory series, narrow enough to say that nothing grows.

`trend` accuses only where every sign agrees, and its interval is wide: where it sees no growth, there may be some. To say
that there is none needs an upper bound for the slope that lies below what matters (an equivalence test: Schuirmann, A
comparison of the two one-sided tests procedure, J. Pharmacokinet. Biopharm. 15, 1987). This file computes that bound.

How sure a slope is depends on whether the noise comes back to its level (allocations that are freed again) or wanders (a
heap that grows and shrinks by chance). The interval holds for both, after Perron and Yabu (Estimating deterministic trends
with an integrated or stationary noise component, J. Econometrics 151, 2009):

    1. up to 36 medians of equal stretches of time, with a line fitted by least squares
    2. the correlation of neighbouring residuals, corrected for the bias that it has in short series
    3. where it is within 2.4 / sqrt(stretches) of 1, the noise wanders: the slope is the mean of the rises, and their
       variance is multiplied by 1.5, since neighbouring medians of a wandering series share a quarter of it
    4. else generalised least squares for noise of this correlation, which is never taken to be below zero
    5. Student's t with half as many degrees of freedom as there are stretches: the correlation is estimated, too

How often such intervals hold the true slope, for each kind of noise: `python tests/bench/bench_drift.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from .student import quantile

__all__ = ["Drift", "drift"]

_MOST_STRETCHES, _LEAST_STRETCHES = 36, 12
_LEAST_IN_STRETCH = 3
_NEAR_ONE = 2.4
_SHARED = 1.5

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Drift:
    """The slope in units of the series a second, and its interval.

    seconds   length of the time judged
    wanders   whether the noise does not return to its level: the interval then narrows with the square root of the time
              only, else with its power of one and a half
    """

    slope: float
    low: float
    high: float
    seconds: float
    wanders: bool

    def seconds_until(self, bound: float) -> float | None:
        """Further seconds of the same noise until the whole interval lies below `bound`, if the slope is as estimated, or 0
        where that is negative; None where the slope itself does not lie below `bound`."""
        if self.high <= bound:
            return 0.0
        slope = max(0.0, self.slope)
        if slope >= bound:
            return None
        power = 2.0 if self.wanders else 2 / 3
        return float(self.seconds * max(0.0, ((self.high - self.slope) / (bound - slope)) ** power - 1))


def drift(points: Points, *, level: float = 0.05, since: float = -math.inf) -> Drift | None:
    """The drift of (time in seconds, value) readings, in order of time, none before `since`.

    level   the probability that the interval misses the true slope, both sides together
    Returns None for fewer than 36 readings, or a gap so long that a stretch has fewer than three.
    """
    judged = [point for point in points if point[0] >= since]
    count = min(_MOST_STRETCHES, len(judged) // _LEAST_IN_STRETCH)
    values = _medians(judged, count) if count >= _LEAST_STRETCHES else None
    # Readings are not aligned with the stretches: try fewer stretches before giving up.
    while values is None and count > _LEAST_STRETCHES:
        count = max(_LEAST_STRETCHES, count * 3 // 4)
        values = _medians(judged, count)
    if values is None:
        return None
    seconds = judged[-1][0] - judged[0][0]
    each = seconds / count
    correlation = _correlation(values)
    if correlation is None:  # a straight line, without any noise
        slope = (values[-1] - values[0]) / (count - 1) / each
        return Drift(slope, slope, slope, seconds, wanders=False)
    wanders = correlation > 1 - _NEAR_ONE / math.sqrt(count)
    slope, error = _wandering(values) if wanders else _returning(values, max(0.0, correlation))
    reach = quantile(1 - level / 2, count / 2) * error
    return Drift(slope / each, (slope - reach) / each, (slope + reach) / each, seconds, wanders)


def _medians(points: Points, count: int) -> list[float] | None:
    """The median of each of `count` equal stretches of time; None where one has too few readings."""
    start, span = points[0][0], points[-1][0] - points[0][0]
    if span <= 0:
        return None
    stretches: list[list[float]] = [[] for _ in range(count)]
    for time, value in points:
        stretches[min(count - 1, int((time - start) / span * count))].append(value)
    if min(map(len, stretches)) < _LEAST_IN_STRETCH:
        return None
    return [median(stretch) for stretch in stretches]


def _correlation(values: Sequence[float]) -> float | None:
    """The correlation of neighbouring residuals around the fitted line; None where the residuals are practically 0."""
    count, middle = len(values), (len(values) - 1) / 2
    mean = math.fsum(values) / count
    slope = math.fsum((place - middle) * (value - mean) for place, value in enumerate(values))
    slope /= count * (count * count - 1) / 12
    residuals = [value - mean - slope * (place - middle) for place, value in enumerate(values)]
    square = math.fsum(each * each for each in residuals[:-1])
    if square <= 1e-18 * math.fsum(value * value for value in values):
        return None
    correlation = math.fsum(one * other for one, other in pairwise(residuals)) / square
    # A line was fitted: the estimate is too low by (2 + 4 x correlation) / count (Kendall, Note on bias in the estimation of
    # autocorrelation, Biometrika 41, 1954).
    return (count * correlation + 2) / (count - 4)


def _wandering(values: Sequence[float]) -> tuple[float, float]:
    """The mean rise from one stretch to the next, and its standard error."""
    rises = [after - before for before, after in pairwise(values)]
    mean = math.fsum(rises) / len(rises)
    variance = math.fsum((rise - mean) ** 2 for rise in rises) / (len(rises) - 1)
    return mean, math.sqrt(_SHARED * variance / len(rises))


def _returning(values: Sequence[float], correlation: float) -> tuple[float, float]:
    """The slope by generalised least squares for noise of this correlation (Prais and Winsten 1954), and its standard error."""
    first = math.sqrt(1 - correlation * correlation)
    count = len(values)
    ones = [first, *([1 - correlation] * (count - 1))]
    places = [0.0, *(place - correlation * (place - 1) for place in range(1, count))]
    # Relative to the first value: squares of large byte counts would lose small differences.
    around = [value - values[0] for value in values]
    whitened = [first * around[0], *(around[at] - correlation * around[at - 1] for at in range(1, count))]
    oo, op, pp = _dot(ones, ones), _dot(ones, places), _dot(places, places)
    ow, pw = _dot(ones, whitened), _dot(places, whitened)
    size = oo * pp - op * op
    level, slope = (pp * ow - op * pw) / size, (oo * pw - op * ow) / size
    rest = math.fsum((w - level * o - slope * p) ** 2 for w, o, p in zip(whitened, ones, places, strict=True))
    return slope, math.sqrt(rest / (count - 2) * oo / size)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))
