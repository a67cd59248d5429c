"""The samples of types that grew are kept before it is known which these are."""

from __future__ import annotations

from collections import Counter
from typing import Any

from diagnostics.agent.readings.walk.picks import Picks, grew_most, spread


class Entry:
    def __init__(self, size: int) -> None:
        self.size = size


def test_of_a_hundred_thousand_candidates_few_are_kept_and_they_stand_for_all_by_their_bytes() -> None:
    picks = Picks()
    # A tenth of the bytes is in the first half, the rest in the second; a twentieth of all in one object.
    entries = [Entry(100) for _ in range(50_000)] + [Entry(900) for _ in range(50_000)] + [Entry(2_500_000)]
    for start in range(0, len(entries), 1000):
        some = entries[start : start + 1000]
        picks.add(((each, each.size) for each in some), 1.0)
        assert all(len(pairs) <= 4096 for pairs in picks._of.values())
    taken = picks.taken({Entry: "app.Entry"}, ["app.Entry"], 100)["app.Entry"]
    sizes = Counter(each.size for each in taken)
    assert 8 <= sizes[100] <= 11
    assert 84 <= sizes[900] <= 88
    assert 4 <= sizes[2_500_000] <= 6
    assert not picks._of


def test_two_classes_of_one_name_are_one_type_and_others_are_not_taken() -> None:
    picks = Picks()
    picks.add([("a", 50), (b"b", 50), (1.5, 24)], 3.0)
    taken = picks.taken({str: "text", bytes: "text", float: "float"}, ["text", "gone"], 4)
    assert sorted(map(type, taken["text"]), key=str) == [bytes, bytes, str, str]
    assert taken["gone"] == []


def test_a_large_object_is_taken_repeatedly() -> None:
    large, small = object(), object()
    assert spread([(small, 10), (large, 990)], 10).count(large) == 10
    assert spread([], 10) == []


def test_the_types_that_grew_most_are_traced_and_those_whose_objects_have_memory_of_their_own() -> None:
    before: dict[str, Any] = {"dict": [10, 1000], "lib.Handle": [0, 0], "str": [5, 50_000], "list": [3, 300]}
    after: dict[str, Any] = {
        "dict": [20, 100_000], "lib.Handle": [25, 1200], "lib.Other": [19, 900], "str": [1, 10], "list": [30, 2_400],
    }  # fmt: skip
    assert grew_most(before, after, ["lib.Handle", "lib.Other"]) == ["dict", "list", "lib.Handle"]
    assert grew_most(after, after, ["lib.Handle"]) == []
