"""Classes whose metaclasses have code of their own: no walk runs it, none fails of it, and what is left out is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]

# In a process of its own: the classes would be there for all later tests.
PROGRAM = """
import json, sys, time
from diagnostics.agent.readings import objects, retained
from diagnostics.agent.readings.newness import FirstLook
from diagnostics.agent.readings.running import tasks

class ComparesAndHasNoHash(type):
    def __eq__(self, other):
        raise RuntimeError("compared")

class Hashes(type):
    def __hash__(self):
        raise RuntimeError("hashed")

class HashesAsProtocolsDo(type):
    def __eq__(self, other):
        return self is other
    def __hash__(self):
        return type.__hash__(self)

class HidesItsAttributes(type):
    def __getattribute__(self, name):
        raise RuntimeError(name)

class HasNoModule(type):
    @property
    def __module__(self):
        raise RuntimeError("module")

class Compared(metaclass=ComparesAndHasNoHash):
    pass

class Hashed(metaclass=Hashes):
    __slots__ = ()

class Protocol(metaclass=HashesAsProtocolsDo):
    def __init__(self):
        self.inside = ["what it holds"]

class Hidden(metaclass=HidesItsAttributes):
    def __init__(self):
        self.inside = ["what it holds"]

class Homeless(metaclass=HasNoModule):
    pass

class Mapping(dict):
    def __iter__(self):
        raise RuntimeError("iterated")
    keys = items = values = __len__ = __getitem__ = __iter__

KINDS = (Compared, Hashed, Protocol, Hidden, Homeless, Mapping)
kept = {kind: [] for kind in KINDS[2:]}
others = [[], []]
def grow():
    for kind, things in kept.items():
        things.extend(kind() for _ in range(500))
    for kind, things in zip(KINDS, others):
        things.extend(kind() for _ in range(500))
grow()
until = time.monotonic() + 60
first = FirstLook()
before = objects.census(until, first)
grow()
after = objects.census(until, None, first)
names = [name for name in after["types"] if name.rpartition(".")[2] in ("Protocol", "Hidden", "Homeless", "Mapping")]
print(json.dumps({
    "grown": {name: after["types"][name][0] - before["types"][name][0] for name in names},
    "not_covered": after["not_covered"],
    "paths": objects.explain([*names, "list"], 12, until, first=first)["paths"],
    "streams": retained.read([], until)["meta"]["streams"],
    "tasks": tasks.read([], [], [], until) is not None,
}))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, encoding="utf-8", timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_instances_are_counted_where_only_the_attributes_of_their_class_are_hidden(told: dict[str, Any]) -> None:
    assert {name.rpartition(".")[2]: count for name, count in told["grown"].items()} == {
        "Protocol": 500, "Hidden": 500, "Homeless": 500, "Mapping": 500,
    }  # fmt: skip


def test_those_of_classes_that_no_set_can_hold_are_left_out_and_named(told: dict[str, Any]) -> None:
    (said,) = [line for line in told["not_covered"] if "has no hash" in line]
    assert "Compared" in said
    assert "Hidden" not in said


def test_ways_are_found_to_and_past_them(told: dict[str, Any]) -> None:
    for name, paths in told["paths"].items():
        if name != "list":
            assert sum(path["samples"] for path in paths) == 12, (name, paths)
            assert all(path["root"] in ("module", "frame") for path in paths), (name, paths)


def test_the_other_walks_come_to_their_end(told: dict[str, Any]) -> None:
    assert told["streams"] == 0
    assert told["tasks"]
