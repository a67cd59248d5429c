from __future__ import annotations

import pytest
from hypothesis import given
from strategies import profiles, stacks

from diagnostics.analysis.algebra import aggregate, only
from diagnostics.analysis.formats import collapsed, decode
from diagnostics.analysis.profile import Frame, Profile
from diagnostics.errors import UsageError


@given(profiles(types=1))
def test_round_trip_of_what_the_format_holds(profile: Profile) -> None:
    found = collapsed.decode(collapsed.encode(profile), profile.sample_types[0])
    sums: dict[tuple[Frame, ...], int] = {}
    for sample in profile.samples:
        sums[sample.stack] = sums.get(sample.stack, 0) + sample.values[0]
    assert {s.stack: s.values[0] for s in found.samples} == {stack: value for stack, value in sums.items() if value}


@given(profiles(types=1))
def test_whatever_was_written_is_recognised(profile: Profile) -> None:
    data = collapsed.encode(profile)
    if data:
        assert decode(data).total() == only(aggregate(profile), 0).total()


def test_a_function_whose_name_begins_as_json_does_is_a_folded_stack() -> None:
    assert decode(b"{;main 3\n").total() == 3


def test_root_first_and_value_last() -> None:
    assert collapsed.encode(stacks(("leaf main", 3))) == b"main (/srv/main.py:4);leaf (/srv/leaf.py:4) 3\n"


def test_stacks_of_other_tools_are_read() -> None:
    found = collapsed.decode(b"java.lang.Thread.run;[unknown];my func 12\r\n\n")
    assert [frame.function for frame in found.samples[0].stack] == ["my func", "[unknown]", "java.lang.Thread.run"]
    assert found.total() == 12


@pytest.mark.parametrize("text", ["no number", "a;b 1.5", "12"])
def test_the_first_line_that_is_not_one_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="line 2"):
        collapsed.decode(f"a;b 1\n{text}\n".encode())
