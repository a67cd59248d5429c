from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from strategies import profiles, stacks

from diagnostics.analysis.profile import Profile
from diagnostics.errors import UsageError


@given(profiles())
def test_json_gives_back_the_same_profile(profile: Profile) -> None:
    assert Profile.from_json(profile.to_json()) == profile


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "other/1"},
        {"frames": None},
        {"frames": [["only a name"]]},
        {"samples": [[[0, 99], [1], {}]]},
        {"samples": [[[-1], [1], {}]]},
        {"samples": [[["0"], [1], {}]]},
        {"samples": [[[0], [1, 2], {}]]},
        {"samples": [[[0], [float("inf")], {}]]},
        {"samples": [[[0], [1], ["label"]]]},
        {"samples": 7},
        {"time": float("nan")},
        {"duration": "long"},
        {"meta": 3},
    ],
    ids=str,
)
def test_damaged_json_is_a_usage_error(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Profile"):
        Profile.from_json({**stacks(("a", 1)).to_json(), **change})


def test_json_that_is_no_object_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        Profile.from_json([1, 2])  # type: ignore[arg-type]
