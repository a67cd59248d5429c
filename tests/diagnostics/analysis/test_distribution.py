"""A distribution tells quantiles within 1 %, adds up, and survives JSON."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.distribution import Distribution

VALUES = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e6)), min_size=1, max_size=60)


def spread(values: list[float]) -> Distribution:
    one = Distribution()
    for value in values:
        one.add(value)
    return one


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_within_one_per_cent(values: list[float], share: float) -> None:
    rank = max(1, math.ceil(share * len(values)))
    assert spread(values).quantile(share) == pytest.approx(sorted(values)[rank - 1], rel=0.0101)


@given(VALUES, VALUES)
def test_parts_add_up_to_the_whole(some: list[float], more: list[float]) -> None:
    parts = [Distribution.from_json(json.loads(json.dumps(spread(values).to_json()))) for values in (some, more)]
    merged, whole = Distribution.merged(parts).to_json(), spread(some + more).to_json()
    assert merged.pop("total") == pytest.approx(whole.pop("total"))
    assert merged == whole


def test_no_values_have_no_quantile_and_a_clock_that_went_back_counts_as_zero() -> None:
    assert Distribution().quantile(0.5) is None
    one = spread([-1e-6])
    one.add(2.0, times=3)
    assert (one.quantile(0.25), one.quantile(1.0), one.count, one.total) == (0.0, 2.0, 4, 6.0)
