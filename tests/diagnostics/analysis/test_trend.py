"""Well-behaved memory is not accused more often than declared, and a leak is found with its slope."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from series import TRENDLESS, Series, filled_once, noise

from diagnostics.analysis.trend import pooled, seconds_to_limit, telling, theil_sen, trend, warm_up_ends

SECONDS = 240


def accusations(make: Callable[[random.Random, int], Series], level: float, series: int = 400) -> int:
    rng = random.Random(7)
    return sum(trend(list(enumerate(make(rng, SECONDS))), level=level).growing for _ in range(series))


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize("make", TRENDLESS.values(), ids=TRENDLESS.keys())
def test_series_without_a_trend_are_accused_no_more_often_than_declared(
    make: Callable[[random.Random, int], Series], level: float
) -> None:
    # Growing is one of the two ways to err, so half the level of 400 series; no allowance for luck is needed.
    assert accusations(make, level) <= 400 * level / 2


def test_a_cache_that_fills_once_is_not_growth() -> None:
    assert (
        accusations(filled_once, 0.05) <= 8
    )  # 2 %; those that begin late and take a third look like a leak that began


def test_warming_up_and_then_staying_has_settled() -> None:
    values = [100 * (1 - math.exp(-second / 20)) + 0.001 * second for second in range(SECONDS)]
    assert trend(list(enumerate(values))).state == "settled"


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_a_leak_is_found_with_its_slope(correlation: float) -> None:
    rng = random.Random(3)
    for _ in range(50):
        found = trend([(second, 0.2 * second + value) for second, value in enumerate(noise(rng, SECONDS, correlation))])
        assert found.growing
        assert found.slope == pytest.approx(0.2, abs=0.03)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= 0.2 <= found.high


def test_a_leak_after_a_jump_is_found_and_the_jump_is_not_in_its_slope() -> None:
    rng = random.Random(5)
    values = [0.3 * second + (500 if second > 30 else 0) + value for second, value in enumerate(noise(rng, SECONDS))]
    found = trend(list(enumerate(values)))
    assert found.growing
    assert found.slope == pytest.approx(0.3, abs=0.03)


def test_a_leak_per_stream_is_told_per_stream() -> None:
    found = trend([(second, 100.0 * second) for second in range(SECONDS)])
    # 5 streams a second finish: 20 bytes each.
    assert found.per(5 * found.seconds / 1000) == pytest.approx((20_000, 20_000, 20_000))
    assert found.per(0) is None


def test_the_warm_up_is_a_quarter_of_life_and_ten_minutes_at_most() -> None:
    assert warm_up_ends(1000.0, 1100.0) == 1025.0
    assert warm_up_ends(1000.0, 100_000.0) == 1600.0
    assert warm_up_ends(1000.0, 900.0) == 1000.0  # the clock was set back
    rising_then_flat = [(float(second), min(second, 60) * 10.0) for second in range(SECONDS)]
    assert trend(rising_then_flat, since=warm_up_ends(0, SECONDS)).state == "not_growing"


def test_too_few_readings_and_gaps_are_unknown() -> None:
    assert trend([]).state == "unknown"
    assert trend([(0.0, 1.0)] * 100).state == "unknown"
    assert trend([(float(second), 1.0) for second in range(30)]).state == "unknown"
    hour = [(float(second), 1.0) for second in range(3600)]
    assert trend(hour[:1000] + hour[2000:]).state == "unknown"
    assert trend(hour[:1000] + hour[1100:]).state == "not_growing"


def test_a_level_that_eleven_rises_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level is 0\.001"):
        trend([(0.0, 0.0)], level=0.001)


def test_the_limit_is_met_when_the_slope_says() -> None:
    growing = trend([(float(second), 10.0 * second) for second in range(100)])
    assert seconds_to_limit(growing, 990.0, 1990.0) == pytest.approx(100.0)
    assert seconds_to_limit(growing, 2000.0, 1990.0) == 0.0
    assert seconds_to_limit(growing, 990.0, None) is None
    flat = trend([(float(second), 10.0) for second in range(100)])
    assert seconds_to_limit(flat, 10.0, 1990.0) is None


def test_theil_and_sen_ignore_an_outlier_and_need_two_x() -> None:
    assert theil_sen([(0, 0), (1, 2), (2, 4), (3, 600), (4, 8)]) == 2
    with pytest.raises(ValueError, match="two different x"):
        theil_sen([(1, 1), (1, 2)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e9, 1e9), min_size=40, max_size=80),
    st.floats(-1e3, 1e3).map(lambda slope: round(slope, 3)),
)
def test_adding_a_slope_adds_it_to_the_answer(values: list[float], slope: float) -> None:
    plain = trend([(float(second), value) for second, value in enumerate(values)])
    tilted = trend([(float(second), value + slope * second) for second, value in enumerate(values)])
    assert plain.slope is not None
    assert tilted.slope is not None
    assert plain.low is not None
    assert plain.high is not None
    assert plain.low <= plain.slope <= plain.high
    # Medians of blocks move by up to the slope within a block, so the answer does, too.
    assert abs(tilted.slope - plain.slope) <= 2 * (abs(slope) + 1e-3) + 2 * (max(values) - min(values))


def lives(make: Callable[[int], Series], count: int, seconds: int) -> list[list[tuple[float, float]]]:
    """Lives of a worker, one after the other, each from nothing."""
    return [
        [(number * (seconds + 5.0) + second, value) for second, value in enumerate(make(seconds))]
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [2, 4, 10])
@pytest.mark.parametrize("make", TRENDLESS.values(), ids=TRENDLESS.keys())
def test_lives_without_a_trend_are_accused_no_more_often_than_declared(
    make: Callable[[random.Random, int], Series], count: int
) -> None:
    rng = random.Random(11)
    level = 0.05 / 18  # a verdict's
    found = [pooled(lives(lambda seconds: make(rng, seconds), count, 60), level=level) for _ in range(300)]
    # A step in each life is a rise of each life, if not one that goes on: it is told apart less well, as a cache that fills is.
    assert sum(one.growing for one in found) <= (300 * 0.025 if make is TRENDLESS["one step"] else 1 + 300 * level)
    assert all(one.state != "unknown" for one in found)


def test_a_leak_is_found_within_lives_though_each_begins_anew() -> None:
    rng = random.Random(13)
    grown = lives(
        lambda seconds: [100 + 0.5 * second + value for second, value in enumerate(noise(rng, seconds))], 6, 30
    )
    found = pooled(grown, level=0.05 / 18)
    assert found.growing
    assert found.slope == pytest.approx(0.5, abs=0.1)
    assert found.seconds == pytest.approx(6 * 29)
    flat = trend([point for life in grown for point in life], level=0.05 / 18)
    assert not flat.growing  # a saw-tooth, as one series


def test_lives_that_fill_their_caches_and_then_stay_have_settled() -> None:
    warm = lives(
        lambda seconds: [100 * (1 - math.exp(-second / 8)) + 0.001 * second for second in range(seconds)], 6, 60
    )
    assert pooled(warm).state == "settled"


def test_too_few_lives_or_too_short_ones_are_unknown() -> None:
    assert pooled([]).state == "unknown"
    short = lives(lambda seconds: [float(second) for second in range(seconds)], 20, 8)
    assert pooled(short).state == "unknown"
    assert pooled(lives(lambda seconds: [float(second) for second in range(seconds)], 3, 9)).state == "unknown"
    with pytest.raises(ValueError, match=r"level is 2"):
        pooled(short, level=2)


def test_the_window_that_says_most_is_the_shortest_that_grows_else_the_longest_that_is_known() -> None:
    def of(value: Any, seconds: int = 3600) -> tuple[float, str]:
        points = [(float(second), value(second)) for second in range(seconds)]
        window, judged = telling(points, level=0.05 / 3, since=0.0, now=points[-1][0])
        return window, judged.state

    assert of(lambda second: 1000.0 * second) == (120.0, "growing")
    assert of(lambda second: 5000.0) == (3600.0, "not_growing")
    # A step each five minutes: two minutes show none of them, ten minutes two.
    assert of(lambda second: 1000.0 * (second // 300)) == (3600.0, "growing")
    # Two readings are too few for any window: nothing is known, and the shortest says so.
    assert of(lambda second: 1.0, seconds=2) == (120.0, "unknown")
