"""Two censuses subtracted."""

from __future__ import annotations

from diagnostics.monitor.captures.kinds.objects import comparable, grown, worth_explaining


def test_types_that_grew_most_bytes_come_first_and_one_that_has_gone_is_told() -> None:
    rows = grown({"bytes": [10, 1000], "dict": [5, 500], "app.Old": [2, 96]}, {"bytes": [30, 4000], "dict": [9, 700]})
    told = [(row["type"], row["bytes_delta"], row["count_delta"], row["bytes"]) for row in rows]
    assert told == [("bytes", 3000, 20, 4000), ("dict", 200, 4, 700), ("app.Old", -96, -2, 0)]


def test_one_census_has_no_growth_and_shows_the_largest_first() -> None:
    rows = grown(None, {"str": [1, 50], "bytes": [3, 300]})
    assert [(row["type"], row["bytes_delta"]) for row in rows] == [("bytes", None), ("str", None)]


def test_what_is_traced_grew_by_a_share_of_the_most_and_is_no_part_of_the_program() -> None:
    before = {"bytes": [1, 0], "dict": [1, 0], "function": [1, 0], "list": [1, 0], "str": [1, 70]}
    after = {"bytes": [1, 10_000], "dict": [1, 5_000], "function": [1, 90_000], "list": [1, 100], "str": [1, 50]}
    assert worth_explaining(grown(before, after)) == ["bytes", "dict"]
    assert worth_explaining(grown(after, after)) == []
    assert worth_explaining(grown(None, after)) == ["bytes", "dict", "list"]


def test_a_census_that_stopped_on_its_way_is_subtracted_from_none() -> None:
    whole, part = {"partial": None}, {"partial": "all but half"}
    assert comparable(whole, whole)
    assert not comparable(whole, part)
    assert not comparable(part, whole)
