"""The 95 % confidence interval of a sampled figure.

Blocks are taken by a Poisson process over allocated bytes: one of n bytes with probability p = 1 - exp(-n / rate), and
it then stands for n / p bytes and 1 / p blocks. So an estimate y of a stack whose blocks have n bytes on average has

    seen       y p             the sampled blocks themselves; the true figure cannot be less
    variance   y n (1 - p) / p

The mean size of a stack's blocks is y's bytes by its blocks; where sizes are mixed, the variance comes out too large
and never too small, since n (1 - p) / p falls with n. Variances of stacks add up.

The interval is that of a weighted sum of Poisson counts by Fay and Feuer (Statistics in Medicine 16, 1997, 791-801),
which holds for a single sample as well, and never reaches below `seen`. Differences have new and freed blocks as separate
samples, and the interval of a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .profile import Profile

__all__ = ["Uncertainty", "interval_of", "rate_of", "sizes_index"]

_Z = 1.959964


class Uncertainty:
    """Adds up estimates of one kind, bytes or blocks, and computes the interval of their sum."""

    __slots__ = ("_largest", "_negative", "_seen", "_value", "_variance")

    def __init__(self) -> None:
        self._value = self._seen = self._variance = self._largest = 0.0
        self._negative = False

    def add(self, value: float, size: float, rate: float, *, blocks: bool = False) -> None:
        """Add `value` bytes, or blocks, of a stack whose blocks have a mean of `size` bytes (0: unknown).

        rate   mean of bytes from one sample to the next
        """
        size = max(size, 1.0)
        chance = -math.expm1(-size / rate)
        unseen_for_each = (1.0 if blocks else size) * math.exp(-size / rate) / chance
        self._value += value
        self._seen += value * chance
        self._variance += abs(value) * unseen_for_each
        self._largest = max(self._largest, unseen_for_each)
        self._negative = self._negative or value < 0

    def interval(self) -> tuple[int, int]:
        """(low, high), 95 %."""
        if self._negative:
            reach = _Z * math.sqrt(self._variance)
            return round(self._value - reach), round(self._value + reach)
        low, high = interval_of(self._value, self._variance, self._largest)
        return round(max(self._seen, low)), round(high)


def interval_of(value: float, variance: float, largest: float) -> tuple[float, float]:
    """The 95 % interval of a weighted sum of Poisson counts by Fay and Feuer.

    largest   what one more sample would have stood for, beside itself: a sum of none may be one that was missed
    """
    low = high = value
    if value > 0 and variance > 0:
        low = variance / (2 * value) * _chi_squared(-_Z, 2 * value**2 / variance)
    if largest > 0:
        spread, reached = variance + largest**2, value + largest
        high = max(value, spread / (2 * reached) * _chi_squared(_Z, 2 * reached**2 / spread))
    return low, high


def _chi_squared(z: float, degrees: float) -> float:
    """The chi-squared quantile for the probability of the normal quantile `z`, by Wilson and Hilferty."""
    ninth = 2 / (9 * degrees)
    return degrees * max(0.0, 1 - ninth + z * math.sqrt(ninth)) ** 3


def rate_of(profile: Profile) -> float | None:
    """The sampling rate, the mean of bytes from one sample to the next; None where every block was counted."""
    sampled: Any = profile.meta.get("sampled")
    rate = sampled.get("rate_bytes") if isinstance(sampled, dict) else None
    return float(rate) if isinstance(rate, int | float) and 1 <= rate < 1 << 62 else None


def sizes_index(profile: Profile, value: int) -> int | None:
    """The index of the count for a value in bytes, or of the bytes for a count; None where the profile has none."""
    name = profile.sample_types[value].name
    other = name.replace("_space", "_objects") if name.endswith("_space") else name.replace("_objects", "_space")
    return _position(other, (kind.name for kind in profile.sample_types)) if other != name else None


def _position(name: str, names: Iterable[str]) -> int | None:
    return next((at for at, each in enumerate(names) if each == name), None)
