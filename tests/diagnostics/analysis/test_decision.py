"""The rule accuses what grows, acquits what does not, and says so when it cannot tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.decision import Decision, Measure, Plan, confidence_interval, decide, lag_one
from diagnostics.proof.study.rates import rates

LEAST = {Measure.GROWTH: 256.0, Measure.REMAINS: 32_768.0}
FLAT = [3.0, -2.0, 1.0, 0.0, -1.0, 2.0, 1.0, -3.0]
FULL = [2100.0, 2090.0, 2110.0, 2105.0, 2095.0, 2100.0, 2108.0, 2097.0]
HELD = [900_000.0, 905_000.0, 899_000.0, 901_000.0]


def judged(growth: list[float], remains: list[float], plan: Plan | None = None) -> Decision:
    return decide({Measure.GROWTH: growth, Measure.REMAINS: remains}, LEAST, plan or Plan()).decision


def test_the_four_answers() -> None:
    assert judged(FULL, FLAT) is Decision.UNBOUNDED
    assert judged(FLAT, FLAT) is Decision.BOUNDED
    assert judged(FLAT, HELD) is Decision.LEAK
    assert judged([0, 900, -700, 1400, -300, 1200, 100, 2000], FLAT) is Decision.INCONCLUSIVE


def test_what_stays_after_the_stream_is_worse_than_what_grows_within() -> None:
    assert judged(FULL, HELD) is Decision.LEAK


@pytest.mark.parametrize("measure", list(Measure))
def test_each_measure_accuses_with_its_word(measure: Measure) -> None:
    high, low = (
        decide({measure: [9.0] * 4}, {measure: 1.0}, Plan()),
        decide({measure: [0.1] * 4}, {measure: 1.0}, Plan()),
    )
    assert (high.decision, low.decision) == (measure.accuses, Decision.BOUNDED)
    assert measure.unit


def test_growth_that_is_real_but_does_not_matter_is_bounded() -> None:
    assert judged([40.0, 41.0, 40.5, 40.2], FLAT) is Decision.BOUNDED


def test_a_decision_is_taken_at_a_look_and_never_between() -> None:
    noisy_then_clear = [2100.0, -900.0, 2600.0, 300.0, *[2100.0] * 4]
    figures = {Measure.GROWTH: noisy_then_clear, Measure.REMAINS: FLAT}
    for rounds in (4, 5):
        part = {measure: values[:rounds] for measure, values in figures.items()}
        found = decide(part, LEAST, Plan())
        assert (found.decision, found.rounds) == (Decision.INCONCLUSIVE, 4)


def test_the_first_conclusive_look_stands_whatever_came_later() -> None:
    found = decide({Measure.GROWTH: FULL[:4] + [-9e6] * 4, Measure.REMAINS: FLAT}, LEAST, Plan())
    assert (found.decision, found.rounds) == (Decision.UNBOUNDED, 4)


def test_the_level_is_shared_by_looks_and_measures() -> None:
    found = decide({Measure.GROWTH: FULL, Measure.REMAINS: FLAT}, LEAST, Plan(looks=(4, 6, 8), level=0.06))
    assert found.intervals[Measure.GROWTH].level == pytest.approx(0.01)


def test_an_acquittal_is_asked_of_all_measures_at_once_and_pays_no_share_for_each() -> None:
    """Four measures of a service that is flat, with noise: at a quarter of the level the first look could not have told."""
    noisy = [-55.0, 50.0, -45.0, 60.0]
    figures = dict.fromkeys((Measure.GROWTH, Measure.REMAINS, Measure.LOAD, Measure.HELD), noisy)
    least = dict.fromkeys(figures, 160.0)
    found = decide(figures, least, Plan(looks=(4, 6, 8), level=0.06))
    assert found.decision is Decision.BOUNDED
    assert found.intervals[Measure.GROWTH].level == pytest.approx(0.02)
    assert confidence_interval(noisy, 0.005).high > 160.0


def test_pages_that_are_touched_once_in_the_first_round_are_no_leak() -> None:
    """As measured of a fixed service: 1.5 MiB in the first round, nothing in the three that follow."""
    figures = {Measure.REMAINS: FLAT, Measure.RESIDENT: [198_656.0, 3_584.0, 0.0, 0.0]}
    least = {Measure.REMAINS: 32_768.0, Measure.RESIDENT: 200_000.0}
    assert decide(figures, least, Plan()).decision is Decision.BOUNDED
    # What comes again in each round is one.
    assert decide({**figures, Measure.RESIDENT: [2e6, 4e5, 4.01e5, 3.99e5]}, least, Plan()).decision is Decision.LEAK


def test_a_measure_without_a_least_growth_is_not_judged() -> None:
    found = decide({Measure.GROWTH: FULL, Measure.REMAINS: FLAT}, {Measure.REMAINS: 32_768.0}, Plan())
    assert found.decision is Decision.BOUNDED
    assert set(found.intervals) == {Measure.REMAINS}


def test_nothing_is_decided_before_the_first_look_or_about_nothing() -> None:
    with pytest.raises(ValueError, match="first look is after 4"):
        judged(FULL[:3], FLAT[:3])
    with pytest.raises(ValueError, match="nothing is judged"):
        decide({}, {}, Plan())


@pytest.mark.parametrize("looks", [(), (2, 4), (4, 4), (6, 4)])
def test_a_plan_without_rising_looks_is_refused(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="looks must rise"):
        Plan(looks=looks)


def test_the_interval_is_the_textbook_one_where_rounds_alternate() -> None:
    # s = sqrt(8/3), t(0.975, 3) = 3.182, no positive correlation: 3.182 * sqrt(8/3) / 2
    found = confidence_interval([-1.0, 1.0, -2.0, 2.0], 0.05)
    assert found.correlation == 0
    assert found.high == pytest.approx(3.182 * (10 / 3) ** 0.5 / 2, abs=1e-3)


def test_rounds_that_follow_each_other_widen_the_interval() -> None:
    mixed = confidence_interval([1, 4, 2, 3, 1, 4, 2, 3], 0.05)
    trend = confidence_interval([1, 1, 2, 2, 3, 3, 4, 4], 0.05)
    assert trend.correlation > 0.5
    assert trend.high - trend.low > 1.5 * (mixed.high - mixed.low)


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=12))
def test_the_mean_is_inside_and_the_correlation_within_bounds(values: list[float]) -> None:
    found = confidence_interval(values, 0.01)
    assert found.low <= found.mean <= found.high
    assert 0 <= lag_one(values) <= 0.8


@given(st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=8), st.floats(1, 1000))
def test_the_answer_does_not_depend_on_the_unit(growth: list[float], unit: float) -> None:
    def answer(scale: float) -> Decision:
        figures = {Measure.GROWTH: [value * scale for value in growth]}
        return decide(figures, {Measure.GROWTH: 100.0 * scale}, Plan()).decision

    # A power of two scales without rounding.
    assert answer(1.0) is answer(2.0 ** round(unit % 20))


@given(st.lists(st.floats(0, 100), min_size=8, max_size=8))
def test_raising_all_figures_never_acquits(figures: list[float]) -> None:
    def answer(extra: float) -> Decision:
        raised = [value + extra for value in figures]
        return decide({Measure.GROWTH: raised}, {Measure.GROWTH: 120.0}, Plan()).decision

    assert answer(0.0) in (Decision.BOUNDED, Decision.INCONCLUSIVE)
    assert answer(200.0) in (Decision.UNBOUNDED, Decision.INCONCLUSIVE)


@pytest.mark.parametrize("kind", ["independent", "AR(1) 0.7", "drifting"])
def test_well_behaved_services_are_not_accused(kind: str) -> None:
    assert rates(0.0, 0.5, kind, trials=300)["accused"] <= 0.01


def test_at_the_least_growth_itself_the_declared_level_holds() -> None:
    found = rates(1.0, 0.5, "independent", trials=400)
    assert found["accused"] + found["acquitted"] <= 0.07


def test_real_growth_is_found_and_never_acquitted() -> None:
    for kind in ("independent", "AR(1) 0.7", "drifting"):
        found = rates(4.0, 0.25, kind, trials=300)
        assert found["accused"] >= 0.9, kind
        assert found["acquitted"] <= 0.01, kind
