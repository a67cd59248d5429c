from __future__ import annotations

import pytest
from hypothesis import given
from strategies import profiles, stacks

from diagnostics.analysis.profile import Profile
from diagnostics.analysis.views import CONTEXT_LINES, listing, top
from diagnostics.errors import UsageError


def test_recursion_counts_once() -> None:
    found = top(stacks(("walk walk walk main", 100), ("main", 1)))
    rows = {row.frame.function: (row.flat, row.cumulative) for row in found.rows}
    assert rows == {"walk": (100, 100), "main": (1, 101)}
    assert (found.total, found.whole) == (101, 101)


def test_a_difference_is_sorted_by_size_of_change_and_its_whole_is_all_that_changed() -> None:
    found = top(stacks(("small", 5), ("shrank", -50), ("grew", 20)))
    assert [row.frame.function for row in found.rows] == ["shrank", "grew", "small"]
    assert (found.total, found.whole) == (-25, 75)


@given(profiles())
def test_flat_adds_up_to_the_total_of_what_has_a_stack(profile: Profile) -> None:
    expected = sum(sample.values[0] for sample in profile.samples if sample.stack)
    for by in ("function", "line"):
        assert sum(row.flat for row in top(profile, by=by).rows) == expected  # type: ignore[arg-type]


def test_listing_shows_lines_with_a_few_around_them() -> None:
    source = [f"line {number}" for number in range(1, 31)]
    (found,) = listing(stacks(("fill main", 64)), "^fill$", {"/srv/fill.py": source}.get)
    assert (found.name, found.flat, found.cumulative) == ("fill", 64, 64)
    assert [line.number for line in found.lines] == list(range(1, 4 + CONTEXT_LINES + 1))
    assert [(line.text, line.flat) for line in found.lines if line.flat] == [("line 4", 64)]


@pytest.mark.parametrize("source", [None, [], ["only one line"]], ids=["none", "empty", "shorter"])
def test_listing_without_the_source_still_has_the_numbers(source: list[str] | None) -> None:
    (found,) = listing(stacks(("fill main", 64)), "fill", lambda file: source)
    assert [(line.number, line.flat, line.text) for line in found.lines] == [(4, 64, None)]


@pytest.mark.parametrize("pattern", ["(", "nobody"])
def test_a_pattern_that_cannot_match_is_a_usage_error(pattern: str) -> None:
    with pytest.raises(UsageError, match="nobody" if pattern == "nobody" else "regular expression"):
        listing(stacks(("fill", 1)), pattern, lambda file: None)
