"""Conditions as text: what is read, that it reads the same again, and that nothing else is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.monitor.rules.expression import SERIES, Condition, ExpressionError, parse_condition
from diagnostics.monitor.rules.triggers import TRIGGERS

MIB = 1024.0**2


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("rss_bytes > 1 for 0s", Condition("rss_bytes", "", "", ">", 1, 0)),
        ("rss_bytes/open_streams>=4MiB for 30s", Condition("rss_bytes", "/", "open_streams", ">=", 4 * MIB, 30)),
        ("threads - children < -2.5 for 2 min", Condition("threads", "-", "children", "<", -2.5, 120)),
        ("loop_lag_seconds <= 250 ms for 1 h", Condition("loop_lag_seconds", "", "", "<=", 0.25, 3600)),
        ("\trss_bytes /cgroup_limit_bytes > 90% for 5 s ", Condition("rss_bytes", "/", "cgroup_limit_bytes", ">", 0.9, 5)),
        ("fds > 1e3 for 5 s", Condition("fds", "", "", ">", 1000, 5)),
    ],
)  # fmt: skip
def test_what_is_read(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    ("text", "place", "allowed"),
    [
        ("", 0, "a recorded series"),
        ("rss > 1 for 1 s", 0, "a recorded series"),
        ("rss_bytes / 2 > 1 for 1 s", 12, "a recorded series"),
        ("rss_bytes * tasks > 1 for 1 s", 10, "a comparison"),
        ("rss_bytes / tasks / fds > 1 for 1 s", 18, "a comparison"),
        ("rss_bytes == 1 for 1 s", 10, "a comparison"),
        ("rss_bytes > tasks for 1 s", 12, "a number"),
        ("rss_bytes > 1 MB for 1 s", 14, '"for"'),
        ("rss_bytes > 1", 13, '"for"'),
        ("rss_bytes > 1 for 5", 19, "one of s, min, h"),
        ("rss_bytes > 1 for 25 h", 22, "at most 24 h"),
        ("rss_bytes > 1 for 5 s or fds > 3 for 5 s", 22, "nothing more"),
        ("rss_bytes > 9e999 for 5 s", 18, "finite"),
        ("rss_bytes > 1 for 5 s" + " " * 200, 200, "at most 200 characters"),
        ("__import__('os') > 1 for 1 s", 0, "a recorded series"),
    ],
)
def test_a_fault_is_told_with_its_place_and_what_may_stand_there(text: str, place: int, allowed: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_condition(text)
    assert (caught.value.place, allowed in caught.value.allowed) == (place, True), str(caught.value)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-(2.0**63), max_value=2.0**63)
CONDITIONS = st.builds(
    lambda first, join, second, compare, bound, hold: Condition(first, join, second if join else "", compare, bound, hold),
    st.sampled_from(SERIES), st.sampled_from(["", "/", "-"]), st.sampled_from(SERIES),
    st.sampled_from([">", ">=", "<", "<="]), NUMBERS.map(lambda number: number + 0.0), st.floats(0, 86400),
)  # fmt: skip


@given(CONDITIONS)
def test_what_a_condition_says_is_the_same_condition(condition: Condition) -> None:
    assert parse_condition(str(condition)) == condition


@given(
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*SERIES[:3], "/", "-", ">", "5", "MiB", "for", "s", " "]),
                                             max_size=12).map(" ".join))
)  # fmt: skip
def test_any_text_is_a_condition_or_refused_with_a_place_within_it(text: str) -> None:
    try:
        condition = parse_condition(text)
    except ExpressionError as error:
        place = error.place
    else:
        place = 0
        assert condition.first in SERIES
        assert math.isfinite(condition.bound)
    assert 0 <= place <= len(text)


VALUES = st.one_of(st.none(), st.floats(0, 2**50))


@given(CONDITIONS, VALUES, VALUES)
def test_what_is_not_known_meets_nothing(condition: Condition, first: float | None, second: float | None) -> None:
    known = {condition.second: second, condition.first: first}
    value = condition.value(known)
    if first is None or (condition.join and known[condition.second] is None):
        assert value is None
    if condition.join == "/" and not known[condition.second]:
        assert value is None
    assert not (value is None and condition.met(value))
    if value is not None:
        lower, upper = (
            condition.met(value) and "<" in condition.compare,
            condition.met(value) and ">" in condition.compare,
        )
        assert not lower or value <= condition.bound
        assert not upper or value >= condition.bound


def test_no_trigger_is_named_as_a_series() -> None:
    assert set(TRIGGERS).isdisjoint(SERIES)
