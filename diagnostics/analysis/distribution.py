"""A distribution of values in little memory: counts in buckets whose bounds rise by 2 %.

A quantile is then right within 1 % of itself, whatever the values are, and two distributions add up exactly, bucket by
bucket, as those of several processes must. Sorting a million latencies is neither needed nor done. (The idea is that of
DDSketch, Masson et al. 2019, without its limit on buckets: from a nanosecond to a day there are 1,650.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Distribution"]

_RATIO = 1.02
_LOG_RATIO = math.log(_RATIO)


class Distribution:
    """Values that are zero or more, of one unit; `count`, `largest` and `total` are exact."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.largest = 0.0
        self.zeros = 0
        self.buckets: Counter[int] = Counter()

    def add(self, value: float, times: int = 1) -> None:
        """Add `value`, `times` times. A value below zero, which a clock may give, counts as zero."""
        self.count += times
        if value <= 0:
            self.zeros += times
            return
        self.total += value * times
        self.largest = max(self.largest, value)
        self.buckets[math.ceil(math.log(value) / _LOG_RATIO)] += times

    def quantile(self, share: float) -> float | None:
        """The value that `share` (0 to 1) of all values do not exceed; None where there are no values.

        >>> spread = Distribution()
        >>> for value in range(1, 101):
        ...     spread.add(value)
        >>> round(spread.quantile(0.5)), spread.quantile(1.0)
        (50, 100)
        """
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        if rank <= self.zeros:
            return 0.0
        if rank >= self.count:
            return self.largest
        seen = self.zeros
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                # The geometric middle of the bucket: at most 1 % from either bound.
                return min(self.largest, math.exp((bucket - 0.5) * _LOG_RATIO))
        return self.largest

    @classmethod
    def merged(cls, parts: Iterable[Distribution]) -> Distribution:
        """All values of all `parts`."""
        whole = cls()
        for part in parts:
            whole.count += part.count
            whole.total += part.total
            whole.largest = max(whole.largest, part.largest)
            whole.zeros += part.zeros
            whole.buckets.update(part.buckets)
        return whole

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "total": self.total,
            "largest": self.largest,
            "zeros": self.zeros,
            "buckets": {str(bucket): times for bucket, times in sorted(self.buckets.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Distribution:
        """The inverse of `to_json`."""
        one = cls()
        one.count, one.total, one.largest = int(data["count"]), float(data["total"]), float(data["largest"])
        one.zeros = int(data["zeros"])
        one.buckets = Counter({int(bucket): int(times) for bucket, times in data["buckets"].items()})
        return one
