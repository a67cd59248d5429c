"""The extension and Python take the same steps: a service without the extension is told the same."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest

from diagnostics.agent.readings import everything, graph, objects, sampling
from diagnostics.agent.readings.paths import way_to
from diagnostics.agent.readings.walk import in_python, parents, steps

_walk = pytest.importorskip("diagnostics.agent.readings.walk._walk", reason="it was not built")


class Slotted:
    __slots__ = ("inside",)

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def __eq__(self, other: object) -> bool:
        raise AssertionError("no object's own code is called")

    __hash__ = None  # type: ignore[assignment]


def mixed(count: int) -> list[Any]:
    lot = random.Random(count)
    make = (str, float, Slotted, lambda number: [number], lambda number: {number: "x"}, lambda number: (number,), bytes)
    some = [lot.choice(make)(lot.randrange(1000)) for _ in range(count)]
    return some + lot.choices(some, k=count // 2)


def same(one: list[Any], other: list[Any]) -> bool:
    return list(map(id, one)) == list(map(id, other))


def test_the_extension_is_used_where_it_was_built() -> None:
    assert steps.Addresses is _walk.Addresses


@pytest.mark.parametrize("count", [0, 1, 2, 50, 5_000])
def test_the_same_classes_and_objects_are_found(count: int) -> None:
    things = mixed(count)
    assert _walk.kinds(things) == in_python.kinds(things)
    for wanted in (frozenset[type](), frozenset({str}), frozenset({Slotted, dict, int}), frozenset(map(type, things))):
        assert same(_walk.of_kinds(things, wanted), in_python.of_kinds(things, wanted))


@pytest.mark.parametrize("parts", [0, 1, 26, 255, 256])
def test_the_same_objects_are_drawn(parts: int) -> None:
    things = mixed(5_000)
    numbers = b"".join(sampling._shuffled(8))
    assert same(_walk.drawn(things, numbers, parts), in_python.drawn(things, numbers, parts))
    with pytest.raises(ValueError, match="256"):
        _walk.drawn(things, b"", parts)


def test_the_same_addresses_are_remembered() -> None:
    lot = random.Random(7)
    things = mixed(20_000)
    ours, theirs = in_python.Addresses(), _walk.Addresses()
    closed = lot.sample(things, 500)
    but, but_theirs = in_python.Addresses(), _walk.Addresses()
    but.add(map(id, closed))
    but_theirs.add(map(id, closed))
    for number in range(40):
        some = lot.choices(things, k=700)
        assert same(ours.fresh(some, number, but), theirs.fresh(some, number, but_theirs))
        assert same(ours.among(closed + some), theirs.among(closed + some))
        assert len(ours) == len(theirs)
    for thing in things:
        assert (id(thing) in ours) == (id(thing) in theirs)
        assert ours.number(id(thing)) == theirs.number(id(thing))
    assert theirs.number(16) is None


@pytest.mark.parametrize("kind", [in_python.Addresses, _walk.Addresses])
def test_no_object_is_held(kind: Any) -> None:
    addresses, thing = kind(), Slotted(None)
    addresses.fresh([thing])
    assert not any(each is addresses for each in gc.get_referrers(thing))


@pytest.mark.parametrize("is_sampled", [False, True])
def test_a_census_counts_the_same_and_none_of_what_it_remembers(
    is_sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered in Python is made of numbers, which are objects as well."""
    monkeypatch.setattr(sampling, "_ALL", 0 if is_sampled else 1 << 40)
    monkeypatch.setattr(sampling, "_ALL_BLOCKS", 1 << 40)
    monkeypatch.setattr(sampling, "_SOME", len(gc.get_objects()) // 10)
    kept = mixed(20_000)
    gc.collect()
    counted = []
    for how in (_walk, in_python, _walk):
        monkeypatch.setattr(everything, "Addresses", how.Addresses)
        monkeypatch.setattr(everything, "of_kinds", how.of_kinds)
        monkeypatch.setattr(everything, "kinds", how.kinds)
        monkeypatch.setattr(sampling, "drawn", how.drawn)
        found = objects.census()
        assert (found["sample"] is not None) == is_sampled
        types = found["types"]
        counted.append({name: types[name][0] for name in ("int", "float", "str", "list", "tuple", "bytes")})
    assert kept
    for name in counted[0]:
        assert counted[1][name] == pytest.approx(counted[2][name], rel=0.01, abs=600), name


@pytest.mark.parametrize("wrong", [None, (), {}, "text"])
def test_what_is_no_list_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        _walk.kinds(wrong)
    with pytest.raises(TypeError):
        _walk.of_kinds(wrong, frozenset())
    with pytest.raises(TypeError):
        _walk.Addresses().fresh(wrong)
    with pytest.raises(TypeError):
        _walk.Addresses().add([None])


def test_a_search_finds_the_same_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    class Node:
        def __init__(self, inside: Any) -> None:
            self.inside = inside

    lot = random.Random(3)
    wanted = [Node([str(number)]) for number in range(30)]
    tree: Any = list(wanted)
    for _ in range(6):
        tree = [Node(tree), {"a": lot.choice(wanted), "b": [tree]}, (tree,)]
    things = [*wanted, *(each.inside[0] for each in wanted)]
    ways = []
    for how in (_walk, in_python):
        monkeypatch.setattr(parents, "Addresses", how.Addresses)
        for name in ("Addresses", "kinds", "of_kinds"):
            monkeypatch.setattr(graph, name, getattr(how, name))
        found = graph.search([tree], things, closed={id(wanted[0])})
        graph.settle(things, found)
        ways.append([list(map(id, way_to(thing, found))) for thing in things])
        assert id(wanted[0]) not in found
    assert ways[0] == ways[1]
    assert sum(map(bool, ways[0])) == 58  # the closed one and its text are on no way
