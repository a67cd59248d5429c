"""An interval for the slope that may be relied on: it holds the true slope as often as it says, whatever the noise."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from series import NOISES, Series, noise

from diagnostics.analysis.drift import Drift, drift

SECONDS, LEVEL, COUNT = 120, 0.05, 400


@pytest.mark.parametrize("slope", [0.0, 0.4])
@pytest.mark.parametrize("make", NOISES.values(), ids=NOISES.keys())
def test_a_bound_on_growth_is_wrong_no_more_often_than_declared(
    make: Callable[[random.Random, int], Series], slope: float
) -> None:
    """ "Does not grow by more than" errs where the whole interval lies below the true slope."""
    rng = random.Random(7)
    wrong = missed = 0
    for _ in range(COUNT):
        found = drift([(float(at), slope * at + value) for at, value in enumerate(make(rng, SECONDS))], level=LEVEL)
        assert found is not None
        wrong += found.high < slope
        missed += not found.low <= slope <= found.high
    # 2.5 % of 400 are 10, with an allowance for luck of two standard deviations; the whole interval may miss 5 %.
    assert wrong <= 16
    assert missed <= COUNT * LEVEL + 9


def test_noise_that_comes_back_is_told_from_noise_that_wanders_by_the_width() -> None:
    rng = random.Random(3)
    returning = drift(list(enumerate(noise(rng, 600))))
    wandering = drift(list(enumerate(noise(rng, 600, 1.0))))
    assert returning is not None
    assert wandering is not None
    assert (returning.wanders, wandering.wanders) == (False, True)
    assert returning.high - returning.low < 0.01
    assert wandering.high - wandering.low > 0.05


def test_it_narrows_fast_where_noise_comes_back_and_says_how_long_that_takes() -> None:
    found = Drift(0.0, -4.0, 4.0, 100.0, wanders=False)
    assert found.seconds_until(4.0) == 0.0
    assert found.seconds_until(0.5) == pytest.approx(300.0)
    assert Drift(0.0, -4.0, 4.0, 100.0, wanders=True).seconds_until(0.5) == pytest.approx(6300.0)
    assert Drift(0.6, -4.0, 4.0, 100.0, wanders=False).seconds_until(0.5) is None
    # A slope below zero is chance: it is not counted on.
    assert (Drift(-3.0, -7.0, 1.0, 100.0, wanders=True).seconds_until(0.5) or 0.0) > 1000.0


def test_a_straight_line_has_no_interval_and_too_few_readings_no_answer() -> None:
    line = drift([(float(at), 3.0 * at) for at in range(100)])
    assert line is not None
    assert (line.low, line.high) == (pytest.approx(3.0, rel=5e-3), pytest.approx(3.0, rel=5e-3))
    still = drift([(float(at), 7e9) for at in range(100)])
    assert still == Drift(0.0, 0.0, 0.0, 99.0, wanders=False)
    assert drift([]) is None
    assert drift([(float(at), 1.0) for at in range(35)]) is None
    assert drift([(1.0, 1.0)] * 100) is None
    gap = [(float(at), 1.0) for at in (*range(20), *range(200, 230))]
    assert drift(gap) is None
    assert drift([(float(at), 1.0) for at in range(100)], since=80.0) is None


def test_readings_that_do_not_come_in_step_are_cut_into_fewer_stretches() -> None:
    irregular = [(at // 9 * 9.0 + at % 9 * 0.1, 2.0 * at) for at in range(108)]
    assert drift(irregular) is not None  # as `trend` judges it: twelve stretches are the last that is tried
    found = drift([(at * 1.07 + (at % 3) * 0.4, 2.0 * at) for at in range(110)])
    assert found is not None
    assert found.slope == pytest.approx(2.0 / 1.07, rel=0.05)
