"""Censuses of a service with too many objects to look at each: what they say must lie within the margins that they tell."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from diagnostics.agent.readings import objects, sampling
from diagnostics.agent.readings.classes import type_name
from diagnostics.agent.readings.newness import FirstLook
from diagnostics.agent.readings.sampling import LARGE_BYTES, PARTS, Sample, parts_for
from diagnostics.agent.readings.walk import in_python
from diagnostics.monitor.captures.kinds.margins import Margins

# An interval of 95 % misses in one case of twenty. Three times its width is missed in none of a hundred million.
_SURELY = 3


class Session:
    def __init__(self) -> None:
        self.name = str(random.random())
        self.events = [random.random()]


class Slotted:
    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = random.random()


_NAMES = [f"{__name__}.Session", f"{__name__}.Slotted", "str", "float", "list"]
kept: list[Any] = []


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All services are too large; about a tenth of this one is looked at."""
    monkeypatch.setattr(sampling, "_ALL", 0)
    monkeypatch.setattr(sampling, "_ALL_BLOCKS", 1 << 40)
    monkeypatch.setattr(sampling, "_SOME", len(gc.get_objects()) // 10)
    yield
    kept.clear()


def types_of(census: dict[str, Any]) -> dict[str, list[int]]:
    return {name: census["types"].get(name, [0, 0]) for name in _NAMES}


def all_of_them(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "_ALL", 1 << 40)
        census = objects.census()
    assert census["sample"] is None
    return types_of(census)


def test_how_many_are_looked_at_depends_on_how_many_there_are() -> None:
    assert parts_for(0, 0) == parts_for(500_000, 2_500_000) == PARTS
    assert 80 <= parts_for(600_000, 600_000) <= 90
    assert parts_for(10**9, 10**9) == 1


def test_a_list_of_millions_of_strings_is_looked_at_by_a_sample() -> None:
    """The collector tracks one object there, and each look at all of its strings took seven seconds."""
    assert parts_for(20_000, 5_500_000) <= 40


@pytest.mark.parametrize("distance", [16, 48, 56, 64, 4096, 1 << 20])
@pytest.mark.parametrize("parts", [1, 26, 128, 255])
def test_objects_that_lie_in_rows_have_the_chance_of_any_others(distance: int, parts: int) -> None:
    """Instances of a class lie in rows in memory: a sample by a few bits of the address would have all of a row or none."""

    class At(int):
        pass

    def numbers(addresses: list[int]) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(in_python, "id", int, raising=False)
            patch.setattr(sampling, "drawn", in_python.drawn)
            _large, small = Sample(parts).of([At(address) for address in addresses], frozenset({At}))
            return len(small)

    # A row of a pool at a time, as what was allocated at one time lies in one.
    start = 0x7F12_3456_0000
    for row in range(8):
        drawn = numbers([start + (1 << 14) * row * 37 + distance * place for place in range(16_000)])
        expected = 16_000 * parts / PARTS
        assert abs(drawn - expected) < 6 * max(1.0, expected * (1 - parts / PARTS)) ** 0.5 + 3


def test_large_objects_are_all_looked_at(sampled: None) -> None:
    before = objects.census()["types"].get("bytearray", [0, 0])
    kept.extend(bytearray(LARGE_BYTES + number) for number in range(50))
    count, size = objects.census()["types"]["bytearray"]
    assert count - before[0] == 50
    assert size - before[1] == sum(map(sys.getsizeof, kept))


def test_what_grew_and_went_is_told_within_its_margin(sampled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.extend(random.choice((Session, Slotted))() for _ in range(30_000))
    first = FirstLook()
    was, before = all_of_them(monkeypatch), objects.census(mark=first)
    assert before["sample"]["share"] < 0.2
    kept[:] = [each for each in kept if random.random() < 0.6]
    kept.extend(Session() for _ in range(15_000))
    now, after = all_of_them(monkeypatch), objects.census(since=first)
    first.close()
    assert after["sample"]["share"] == before["sample"]["share"]
    margins = Margins(before, after)
    assert margins.sampled is not None
    for name, (count, size) in types_of(after).items():
        of_it = margins.of(name)
        true_count, true_size = now[name][0] - was[name][0], now[name][1] - was[name][1]
        told_count, told_size = count - types_of(before)[name][0], size - types_of(before)[name][1]
        assert abs(told_count - true_count) <= _SURELY * of_it["margin_count"], name
        assert abs(told_size - true_size) <= _SURELY * of_it["margin_bytes"], name
    # A fifth of the type's bytes would be no figure; they are told to some per cent.
    session = margins.of(_NAMES[0])
    assert session["margin_bytes"] < 0.1 * now[_NAMES[0]][1]


def test_what_did_not_change_is_told_to_a_few_objects(sampled: None) -> None:
    """An object is in both samples or in none: a service of millions of objects that stay has no noise of thousands."""
    kept.extend(Slotted() for _ in range(50_000))
    first = FirstLook()
    before, after = objects.census(mark=first), objects.census(since=first)
    first.close()
    name = f"{__name__}.Slotted"
    assert after["types"][name] == before["types"][name]
    weight = 1 / after["sample"]["share"]
    assert Margins(before, after).of(name)["margin_count"] == round(2 * weight)


def test_one_census_alone_is_told_within_its_margin(sampled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.extend(Session() for _ in range(20_000))
    now, census = all_of_them(monkeypatch), objects.census()
    margins = Margins(None, census)
    for name, (_count, size) in types_of(census).items():
        assert abs(size - now[name][1]) <= _SURELY * margins.of(name)["margin_bytes"], name


def test_the_way_to_what_grew_is_found_in_a_sample(sampled: None) -> None:
    first = FirstLook()
    objects.census(mark=first)
    kept.extend(Session() for _ in range(3_000))
    told = objects.explain([f"{__name__}.Session"], 12, first=first)["paths"]
    first.close()
    (way,) = told[f"{__name__}.Session"]
    assert way["path"] == f"module {__name__} -> global 'kept' -> list[3000] -> {type_name(Session)}"


def test_the_margins_are_those_of_a_sample_that_is_drawn_by_lot() -> None:
    """Drawn two thousand times on paper: the interval has the truth in it in at least 95 of 100."""
    lot = random.Random(5)
    within = tried = 0
    for _ in range(2_000):
        share = lot.choice((0.05, 0.2, 0.5))
        population = {
            part: [lot.choice((48, 64, 900)) for _ in range(lot.randrange(0, 400))] for part in ("stay", "go", "come")
        }
        drawn = {part: [size for size in sizes if lot.random() < share] for part, sizes in population.items()}
        was, now = [*drawn["stay"], *drawn["go"]], [*drawn["stay"], *drawn["come"]]
        before = census_of(share, was, [])
        after = census_of(share, now, drawn["come"])
        truth = sum(population["come"]) - sum(population["go"])
        margin = Margins(before, after).of("thing")["margin_bytes"]
        within += abs((sum(now) - sum(was)) / share - truth) <= margin
        tried += 1
    assert within / tried >= 0.95


def census_of(share: float, sizes: list[int], new: list[int]) -> dict[str, Any]:
    row = [len(sizes), sum(size**2 for size in sizes), len(new), sum(size**2 for size in new)]
    return {"sample": {"share": share, "types": {"thing": row}}}


def test_of_everything_there_is_no_margin() -> None:
    margins = Margins({"sample": None}, {"sample": None})
    assert margins.sampled is None
    assert margins.total_bytes == 0
    assert margins.of("dict") == {"margin_bytes": 0, "margin_count": 0}
