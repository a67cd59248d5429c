"""Whether resident memory grows from mix to mix, as a slope with its interval.

The first mixes fill caches and the allocator's pools, and are left out. A relay that keeps 100 bytes of each of the
244 clients of a mix would show 24 KiB a mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

__all__ = ["WARM_UP", "grows", "slope"]

# Mixes, or troubles, that are left out.
WARM_UP = 10
# Fewer readings than this say nothing.
LEAST = 20
# Student's t, two-sided, 99.9 %, for 20 or more degrees of freedom: a campaign is one of hundreds.
STUDENT = 3.85
# What an allocator's pools may still grow by in a whole campaign, once they are warm.
ALLOWED_BYTES = 8 * 1024 * 1024


def slope(readings: Sequence[float]) -> tuple[float, float, float]:
    """Least squares of equally spaced readings: the slope for each step, and its 99.9 % interval."""
    count = len(readings)
    middle, mean = (count - 1) / 2, fmean(readings)
    spread = sum((at - middle) ** 2 for at in range(count))
    found = sum((at - middle) * (value - mean) for at, value in enumerate(readings)) / spread
    rest = sum((value - mean - found * (at - middle)) ** 2 for at, value in enumerate(readings))
    error = STUDENT * (rest / max(1, count - 2) / spread) ** 0.5
    return found, found - error, found + error


def grows(rss_bytes: Sequence[float]) -> str:
    """What is wrong with a campaign's readings of resident memory, one after each mix; "" where nothing is."""
    warm = rss_bytes[WARM_UP:]
    if len(warm) < LEAST:
        return ""
    found, low, high = slope(warm)
    if low > 0 and found * len(warm) > ALLOWED_BYTES:
        return f"memory grows by {found / 1024:.0f} KiB a mix ({low / 1024:.0f} .. {high / 1024:.0f})"
    return ""
