"""The laws that the docstring of `algebra` states."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import profiles, stacks

from diagnostics.analysis.algebra import aggregate, average, difference, labelled, merge, only, select, value_index
from diagnostics.analysis.profile import Profile, ValueType
from diagnostics.errors import UsageError


@given(profiles())
def test_the_difference_of_a_profile_with_itself_is_empty(profile: Profile) -> None:
    assert difference(profile, profile).samples == ()


@given(profiles(types=2), profiles(types=2))
def test_before_and_difference_add_up_to_after(before: Profile, after: Profile) -> None:
    again = merge([before, difference(after, before)])
    left = difference(again, after)
    assert left.samples == ()


@given(st.lists(profiles(types=2), min_size=1, max_size=4))
def test_totals_add_up_under_merge(many: list[Profile]) -> None:
    merged = merge(many)
    for index in range(2):
        assert merged.total(index) == sum(profile.total(index) for profile in many)


@given(profiles(types=2), st.integers(1, 4))
def test_the_average_of_equal_profiles_is_each_of_them(profile: Profile, count: int) -> None:
    assert difference(average([profile] * count), profile).samples == ()


@given(profiles())
def test_a_label_is_there_once_and_changes_no_value(profile: Profile) -> None:
    twice = labelled(labelled(profile, "replica", "a"), "replica", "b")
    assert twice.total() == profile.total()
    assert all([value for key, value in sample.labels if key == "replica"] == ["b"] for sample in twice.samples)


@given(profiles(), st.sampled_from(["a", "^$", "[0-9]", ".", "b:3"]))
def test_focus_and_ignore_are_together_the_whole(profile: Profile, pattern: str) -> None:
    kept, rest = select(profile, focus=pattern), select(profile, ignore=pattern)
    assert len(kept.samples) + len(rest.samples) == len(profile.samples)
    assert kept.total() + rest.total() == profile.total()


@given(profiles())
def test_aggregate_keeps_totals_and_has_each_stack_once(profile: Profile) -> None:
    found = aggregate(profile)
    assert found.total() == profile.total()
    keys = [(sample.stack, sample.labels) for sample in found.samples]
    assert len(keys) == len(set(keys))


def test_difference_keeps_what_grew_shrank_and_vanished() -> None:
    before = stacks(("leak main", 10), ("cache main", 50), ("gone main", 7), ("same main", 3))
    after = replace(
        stacks(("leak main", 90), ("cache main", 20), ("same main", 3), ("new main", 1)), time=1_790_000_060.0
    )
    found = difference(after, before)
    assert {sample.stack[0].function: sample.values[0] for sample in found.samples} == {
        "leak": 80,
        "cache": -30,
        "gone": -7,
        "new": 1,
    }
    assert found.duration == 60.0


def test_focus_looks_at_functions_and_files_of_the_whole_stack() -> None:
    profile = stacks(("leaf middle root", 1), ("leaf other root", 2))
    assert select(profile, focus="^middle$").total() == 1
    assert select(profile, focus=r"/srv/other\.py").total() == 2
    assert select(profile, focus="leaf", ignore="middle").total() == 2


def test_labels_select() -> None:
    profile = stacks(("a", 1), ("b", 2))
    labelled = replace(
        profile, samples=tuple(replace(s, labels=(("route", f"/{s.stack[0].function}"),)) for s in profile.samples)
    )
    assert select(labelled, labels={"route": "/b"}).total() == 2
    assert select(labelled, labels={"route": "/b", "state": "x"}).samples == ()


def test_different_types_are_refused_with_both_named() -> None:
    profile = stacks(("a", 1))
    other = replace(profile, sample_types=(ValueType("objects", "count"),))
    for combine in (difference, lambda a, b: merge([a, b])):
        with pytest.raises(
            UsageError, match=r"inuse_space/bytes and objects/count|objects/count and inuse_space/bytes"
        ):
            combine(profile, other)


def test_nothing_to_merge_and_bad_patterns_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([])
    with pytest.raises(UsageError, match=r"focus '\(' is not a regular expression"):
        select(stacks(("a", 1)), focus="(")


def test_a_sample_type_is_chosen_by_name() -> None:
    profile = stacks(("a", 1))
    assert value_index(profile, None) == value_index(profile, "inuse_space") == 0
    with pytest.raises(UsageError, match="choose from: inuse_space"):
        value_index(profile, "alloc_space")
    assert only(stacks(("a", 1), ("b", 0)), 0).samples == profile.samples


def test_merging_keeps_the_notes_once_and_the_meta_that_all_share() -> None:
    one = replace(stacks(("a", 1)), not_covered=("x",), meta={"worker": 1, "of": "leaked"})
    two = replace(stacks(("b", 1)), not_covered=("x", "y"), meta={"worker": 2, "of": "leaked"})
    merged = merge([one, two])
    assert merged.not_covered == ("x", "y")
    assert merged.meta == {"of": "leaked", "merged": 2}
    assert merged.duration == 10.0
