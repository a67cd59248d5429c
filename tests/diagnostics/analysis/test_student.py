"""Against the printed tables that everyone has: two-sided 95 %, 99 % and one-sided 99.5 % points."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.student import cdf, quantile

TABLE = [
    (0.975, 1, 12.706),
    (0.975, 2, 4.303),
    (0.975, 3, 3.182),
    (0.975, 4, 2.776),
    (0.975, 5, 2.571),
    (0.975, 7, 2.365),
    (0.975, 10, 2.228),
    (0.975, 30, 2.042),
    (0.975, 120, 1.980),
    (0.95, 3, 2.353),
    (0.95, 9, 1.833),
    (0.995, 3, 5.841),
    (0.995, 7, 3.499),
    (0.995, 30, 2.750),
    (0.9995, 5, 6.869),
]


@pytest.mark.parametrize(("probability", "degrees", "printed"), TABLE)
def test_quantiles_agree_with_the_printed_tables(probability: float, degrees: int, printed: float) -> None:
    assert quantile(probability, degrees) == pytest.approx(printed, abs=1e-3)


@given(st.floats(0.001, 0.999), st.floats(0.5, 500))
def test_the_quantile_is_the_inverse_of_the_distribution(probability: float, degrees: float) -> None:
    assert cdf(quantile(probability, degrees), degrees) == pytest.approx(probability, abs=1e-7)


@given(st.floats(-50, 50), st.floats(0.5, 500))
def test_the_distribution_is_symmetric(t: float, degrees: float) -> None:
    assert cdf(t, degrees) + cdf(-t, degrees) == pytest.approx(1)


def test_one_degree_of_freedom_is_the_cauchy_distribution() -> None:
    for t in (-3.0, -0.5, 0.25, 8.0):
        assert cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, 1.5])
def test_a_probability_outside_of_zero_and_one_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile(probability, 3)


def test_no_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        cdf(1.0, 0)
