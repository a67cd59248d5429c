"""Objects that no object refers to, and whose types the garbage collector does not know, are counted where they lie."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from typing import Any

import pytest

from diagnostics.agent.readings import objects

COUNT = 5000


# In an interpreter that does nothing else: in pytest's own, strings come and go by the hundred.
LOST = '''
import array, ctypes, gc, json, os, sys, tempfile
from diagnostics.agent.readings import objects
from diagnostics.monitor.captures.kinds.objects import unheld

make, count = eval(sys.argv[1]), int(sys.argv[2])
kept = array.array("Q")  # no list: its numbers are objects

def lose(thing):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    kept.append(id(thing))

def census():
    """In a forked child, as the agent does it: what a census makes of its own is in no other one."""
    with tempfile.TemporaryFile() as file:
        pid = os.fork()
        if pid == 0:
            os.write(file.fileno(), json.dumps(objects.census()).encode())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        file.seek(0)
        return json.load(file)

gc.collect()  # what a program consists of is tracked until the first one, as in no service that has run for a while
before = census()
held = [make(1000 + number) for number in range(count)] if sys.argv[3] == "held" else []
for number in range(0 if held else count):
    lose(make(1000 + number))
gc.collect()  # after which a tuple of numbers is tracked no more
after = census()
rows, unknown = unheld(before, after)
kind = type(make(0)).__name__
counted = after["types"].get(kind, [0, 0])[0] - before["types"].get(kind, [0, 0])[0]
print(json.dumps({"rows": [row for row in rows or () if row["type"] == kind], "unknown": unknown, "counted": counted}))
'''


def census_of(make: str, how: str) -> dict[str, Any]:
    """What two censuses tell of COUNT objects that were made between them, and of which a list holds all, or nothing does."""
    done = subprocess.run(
        [sys.executable, "-c", LOST, make, str(COUNT), how],
        check=True,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["unknown"] is None
    return told


@pytest.mark.parametrize(
    "make",
    [
        "lambda n: f'X-Header-{n}'",
        "lambda n: 2**70 + n",
        "lambda n: b'%d' % n * 5",
        "lambda n: tuple(range(n, n + 20))",
    ],
    ids=["str", "int", "bytes", "tuple"],
)
def test_what_c_code_has_lost_is_found_in_the_allocators_blocks(make: str) -> None:
    """Its holder was looked for, and an innocent one found: of these only the blocks tell."""
    told = census_of(make, "lost")
    assert told["counted"] < COUNT / 2
    (found,) = told["rows"]
    assert found["count_delta"] == pytest.approx(COUNT, rel=0.1)
    assert found["unheld"] is True


def test_what_a_container_holds_is_in_no_such_row() -> None:
    told = census_of("lambda n: f'X-Header-{n}'", "held")
    assert not [row for row in told["rows"] if row["count_delta"] > COUNT / 10]


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.parametrize("make", [lambda n: datetime.timedelta(n), lambda n: complex(n, n), lambda n: range(n)])
def test_a_census_counts_types_that_the_collector_does_not_know(make: Any) -> None:
    kind = _name(type(make(1)))
    before = objects.census()["types"].get(kind, [0, 0])[0]
    held = [make(number) for number in range(1, 301)]
    after = objects.census()
    # A process that has imported all tests may have so many objects that a sample of them is counted.
    share = after["sample"]["share"] if after["sample"] else 1.0
    margin = 5 + 6 * math.sqrt(len(held) * (1 - share) / share)
    assert after["types"][kind][0] - before == pytest.approx(len(held), abs=margin)


DISBELIEVED = """
import json, math
from diagnostics.agent.readings import blocks

whole = blocks.read(math.inf)
blocks._regions = lambda: iter(())
print(json.dumps([whole, blocks.read(math.inf)]))
"""


def test_blocks_that_do_not_add_up_are_not_believed() -> None:
    # Not in pytest's own process: other tests may have put a tracer before its allocator.
    done = subprocess.run(
        [sys.executable, "-c", DISBELIEVED], capture_output=True, encoding="utf-8", check=True, timeout=60
    )  # fmt: skip
    whole, told = json.loads(done.stdout)
    assert whole["unknown"] is None
    assert whole["types"]["str"][0] > 1000
    assert "0 blocks were found where pymalloc has handed out" in told["unknown"]
    assert told["types"] == {}


def test_without_pymalloc_it_is_unknown_and_says_so() -> None:
    code = "from diagnostics.agent.readings import blocks; print(blocks.read(1e9)['unknown'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONMALLOC": "malloc"},
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    assert "pymalloc does not serve this interpreter" in done.stdout
