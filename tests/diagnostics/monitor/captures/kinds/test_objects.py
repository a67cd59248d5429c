"""Two censuses subtracted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from diagnostics.monitor.captures.kinds.objects import grown, take, unheld, why_incomparable, worth_explaining


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


class Told:
    """A session whose agent gives these answers."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder, self.asked = folder, list[tuple[str, dict[str, Any]]]()
        self.options = {"seconds": 5.0, "paths": True}
        self._more = more

    def enter(self, phase: str) -> None: ...

    async def wait(self, seconds: float) -> None: ...

    async def ask_reading(self, op: str, *, patience: float, **given: Any) -> dict[str, Any]:
        self.asked.append((op, given))
        if op == "objects.explain":
            return {"paths": {name: [{"path": "by a third child", "samples": 12}] for name in given["types"]}}
        many = len(self.asked) * 1000
        census = {
            "types": {"bytes": [many, 100 * many], "dict": [many, 60 * many], "str": [5, 500]}, "time": 0.0, "seconds": 1.0,
            "objects": 2 * many, "partial": None, "sample": None, "numbers": True, "not_covered": [], "freed": 0,
            "blocks": {"types": {}, "blocks": 0, "unknown": "not here"}, "handles": [],
        }  # fmt: skip
        return census | {name: value[len(self.asked) - 1] for name, value in self._more.items()}


def test_the_second_look_traces_what_grew_and_no_third_one_is_taken(tmp_path: Path) -> None:
    """A service of five million objects was walked through a third time, to find again what the second look had seen."""
    ways = {name: [{"path": f"module app -> {name}", "samples": 12}] for name in ("bytes", "dict", "str")}
    session: Any = Told(tmp_path, at=[100.0, 106.5], in_use=[10_000, 90_000], paths=[{}, ways])
    found = asyncio.run(take(session))
    assert [(op, given.get("samples")) for op, given in session.asked] == [
        ("objects.census", None),
        ("objects.census", 12),
    ]
    # What has not grown is not told, though its ways were found. Bytes and seconds are those between the two forks.
    assert found["paths"] == {name: ways[name] for name in ("bytes", "dict")}
    assert (found["elapsed"], found["in_use_delta"]) == (6.5, 80_000)


def test_an_agent_of_an_older_release_is_asked_for_the_ways_by_themselves(tmp_path: Path) -> None:
    session: Any = Told(tmp_path)
    found = asyncio.run(take(session))
    assert [op for op, _ in session.asked] == ["objects.census", "objects.census", "objects.explain"]
    assert "samples" not in session.asked[1][1]
    assert found["paths"]["bytes"][0]["path"] == "by a third child"
    assert (found["elapsed"], found["in_use_delta"]) == (None, None)
