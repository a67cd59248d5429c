"""Objects that no object refers to, and whose types the garbage collector does not know, are counted where they lie."""

from __future__ import annotations

import ctypes
import datetime
import gc
import math
import subprocess
import sys
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

from diagnostics.agent.readings import blocks, objects
from diagnostics.monitor.captures.kinds.objects import unheld

COUNT = 5000


@pytest.fixture
def lost() -> Iterator[array[int]]:
    """Addresses of objects with one reference too many, which is taken back at the end. No list: its numbers are objects."""
    addresses = array("Q")
    yield addresses
    for address in addresses:
        ctypes.pythonapi.Py_DecRef(ctypes.cast(address, ctypes.py_object))


def lose(thing: Any, addresses: array[int]) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    addresses.append(id(thing))


def full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.parametrize(
    "make",
    [lambda n: f"X-Header-{n}", lambda n: 2**70 + n, lambda n: b"%d" % n * 5, lambda n: tuple(range(n, n + 20))],
    ids=["str", "int", "bytes", "tuple"],
)
def test_what_c_code_has_lost_is_found_in_the_allocators_blocks(make: Any, lost: array[int]) -> None:
    """Its holder was looked for, and an innocent one found: of these only the blocks tell."""
    kind = full_name(type(make(1000)))
    before = objects.census()
    for number in range(COUNT):
        lose(make(1000 + number), lost)
    gc.collect()  # after which a tuple of numbers is tracked no more
    after = objects.census()
    assert after["types"].get(kind, [0, 0])[0] - before["types"].get(kind, [0, 0])[0] < COUNT / 2
    rows, unknown = unheld(before, after)
    assert unknown is None
    (found,) = (row for row in rows or () if row["type"] == kind)
    assert found["count_delta"] == pytest.approx(COUNT, rel=0.1)
    assert found["unheld"] is True


def test_what_a_container_holds_is_in_no_such_row() -> None:
    before = objects.census()
    held = [f"X-Header-{number}" for number in range(COUNT)]
    rows, unknown = unheld(before, objects.census())
    assert unknown is None
    assert not [row for row in rows or () if row["type"] == "str" and row["count_delta"] > COUNT / 10]
    assert len(held) == COUNT


@pytest.mark.parametrize("make", [lambda n: datetime.timedelta(n), lambda n: complex(n, n), lambda n: range(n)])
def test_a_census_counts_types_that_the_collector_does_not_know(make: Any) -> None:
    kind = full_name(type(make(1)))
    before = objects.census()["types"].get(kind, [0, 0])[0]
    held = [make(number) for number in range(1, 301)]
    assert objects.census()["types"][kind][0] - before == pytest.approx(len(held), abs=5)


def test_blocks_that_do_not_add_up_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = blocks.read(math.inf)
    assert whole["unknown"] is None
    assert whole["types"]["str"][0] > 1000
    monkeypatch.setattr(blocks, "_regions", lambda: iter(()))
    told = blocks.read(math.inf)
    assert "0 blocks were found where pymalloc has handed out" in told["unknown"]
    assert told["types"] == {}


def test_without_pymalloc_it_is_unknown_and_says_so() -> None:
    code = "from diagnostics.agent.readings import blocks; print(blocks.read(1e9)['unknown'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "pymalloc does not serve this interpreter" in done.stdout
