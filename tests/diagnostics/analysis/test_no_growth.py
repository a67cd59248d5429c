"""That memory does not grow is said with a bound that holds: whole verdicts over simulated services whose slope is known."""

from __future__ import annotations

import pytest
from statements import STATEMENTS, TRUTHS, Outcome, simulate

_COUNT, _LEVEL = 8, 0.05


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[tuple[str, float], Outcome]]:
    return simulate(150, _COUNT)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_bound_that_is_told_holds_as_often_as_it_says(
    statement: str, outcomes: dict[str, dict[tuple[str, float], Outcome]]
) -> None:
    cells = outcomes[statement]
    for truth in TRUTHS:
        together = sum((one for (_noise, slope), one in cells.items() if slope == truth), Outcome())
        assert together.asked == _COUNT * len({noise for noise, _slope in cells})
        # With an allowance for luck: 5 % of 80 are 4, and two standard deviations are 4 more.
        assert together.wrong <= _LEVEL * together.asked + 4
    # It is no rule that never says anything, nor one that says it of growth which matters.
    said = {truth: sum(one.said for (_noise, slope), one in cells.items() if slope == truth) for truth in TRUTHS}
    assert said[0.0] >= 0.4 * _COUNT * len(cells) / len(TRUTHS)
    assert said[2.0] == 0


def test_the_simulation_sees_a_bound_that_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interval of a third of its width the same simulation must find it out."""
    from diagnostics.analysis.verdict import readings

    monkeypatch.setattr(readings, "_BOUND_LEVEL", 0.7)
    statement = next(iter(STATEMENTS))
    cells = simulate(150, _COUNT, [statement])[statement]
    assert sum((one for (_noise, slope), one in cells.items() if slope == 0.9), Outcome()).wrong > 0.1 * 10 * _COUNT
