"""Two censuses subtracted."""

from __future__ import annotations

from typing import Any

from diagnostics.monitor.captures.kinds.objects import grown, unheld, why_incomparable, worth_explaining


def test_types_that_grew_most_bytes_come_first_and_one_that_has_gone_is_told() -> None:
    rows = grown({"bytes": [10, 1000], "dict": [5, 500], "app.Old": [2, 96]}, {"bytes": [30, 4000], "dict": [9, 700]})
    told = [(row["type"], row["bytes_delta"], row["count_delta"], row["bytes"]) for row in rows]
    assert told == [("bytes", 3000, 20, 4000), ("dict", 200, 4, 700), ("app.Old", -96, -2, 0)]


def test_one_census_has_no_growth_and_shows_the_largest_first() -> None:
    rows = grown(None, {"str": [1, 50], "bytes": [3, 300]})
    assert [(row["type"], row["bytes_delta"]) for row in rows] == [("bytes", None), ("str", None)]


def test_what_is_traced_grew_by_a_share_of_the_most() -> None:
    before = {"bytes": [1, 0], "dict": [1, 0], "function": [1, 0], "list": [1, 0], "str": [1, 70]}
    after = {"bytes": [1, 10_000], "dict": [1, 5_000], "function": [1, 9_000], "list": [1, 100], "str": [1, 50]}
    # Handlers that are registered for each request are functions: they were never traced, and nobody learned who keeps them.
    assert worth_explaining(grown(before, after)) == ["bytes", "function", "dict"]
    assert worth_explaining(grown(after, after)) == []
    # Of the largest, those of the program itself are no news.
    assert worth_explaining(grown(None, after)) == ["bytes", "dict", "list", "str"]
    many = {f"app.Kind{number}": [1, 1000 - number] for number in range(20)}
    assert worth_explaining(grown(None, many)) == [f"app.Kind{number}" for number in range(8)]


def of(
    types: dict[str, list[int]], blocks: dict[str, list[int]], numbers: bool = True, unknown: str | None = None
) -> Any:
    return {"types": types, "blocks": {"types": blocks, "unknown": unknown}, "numbers": numbers}


def test_of_what_lies_in_blocks_only_what_no_container_holds_is_a_row() -> None:
    before = of({"str": [100, 5000], "dict": [9, 900]}, {"str": [120, 6000], "dict": [9, 576], "int": [10, 320]})
    after = of({"str": [150, 7500], "dict": [19, 1900]}, {"str": [220, 11_000], "dict": [19, 1216], "int": [60, 1920]})
    rows, unknown = unheld(before, after)
    assert unknown is None
    assert [(row["type"], row["count_delta"], row["bytes_delta"]) for row in rows or ()] == [
        ("str", 50, 2500),
        ("int", 50, 1600),
    ]
    # Numbers that were too many to be counted from their holders are not missed in them.
    assert [row["type"] for row in unheld(before, {**after, "numbers": False})[0] or ()] == ["str"]
    assert unheld(before, of({}, {}, unknown="pymalloc does not serve it"))[1] == "pymalloc does not serve it"


def test_a_census_that_stopped_on_its_way_is_subtracted_from_none() -> None:
    whole, part = {"partial": None, "sample": None}, {"partial": "all but half", "sample": None}
    assert why_incomparable(whole, whole) is None
    assert why_incomparable(whole, part)
    assert why_incomparable(part, whole)
    half = {"partial": None, "sample": {"share": 0.5}}
    assert why_incomparable(half, half) is None
    assert "another capture" in str(why_incomparable(whole, half))
