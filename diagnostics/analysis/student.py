"""Student's t distribution, in the standard library alone.

The law of this file: the cumulative distribution comes from the regularized incomplete beta function (Abramowitz and Stegun,
Handbook of Mathematical Functions, 26.7.1 and 26.5.8), the quantile from bisecting it. Both agree with printed tables
to every digit that those print. Speed does not matter here: a verdict needs a handful of quantiles, and they are cached.
"""

from __future__ import annotations

import math
from functools import lru_cache

__all__ = ["cdf", "quantile"]

# Lentz's method stops where a step changes the fraction by less than this, far below any table's last digit.
_PRECISION = 1e-14
_TINY = 1e-300
_STEPS = 500


def cdf(t: float, degrees: float) -> float:
    """The probability that Student's t with `degrees` degrees of freedom (> 0) is at most `t`."""
    if not degrees > 0:
        raise ValueError(f"degrees of freedom must be above 0, not {degrees!r}")
    if t == 0:
        return 0.5
    tail = 0.5 * _regularized_beta(degrees / (degrees + t * t), degrees / 2, 0.5)
    return 1 - tail if t > 0 else tail


@lru_cache(maxsize=1024)
def quantile(probability: float, degrees: float) -> float:
    """The `t` below which Student's t falls with `probability` (0 < probability < 1).

    >>> round(quantile(0.975, 3), 3)
    3.182
    """
    if not 0 < probability < 1:
        raise ValueError(f"a probability must be between 0 and 1, not {probability!r}")
    if probability < 0.5:
        return -quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while cdf(high, degrees) < probability:
        low, high = high, high * 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        if cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _regularized_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), 0 <= x <= 1."""
    if x in (0.0, 1.0):
        return x
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x),
    )
    # The continued fraction converges quickly on this side of the mean; the other side is its mirror image.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            result *= c * d
        if abs(c * d - 1) < _PRECISION:
            return result
    raise ArithmeticError(f"the incomplete beta function did not converge at x={x}, a={a}, b={b}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
