"""What lines gained in a life is read as it was written, or refused; whatever stands in the file."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.lines import life_file
from diagnostics.analysis.lines.lives import life_of, pooled
from diagnostics.errors import UsageError

from .planted_heap import RATE, STARTED, Heap


def test_a_life_is_read_as_it_was_written_and_tells_the_same() -> None:
    heap = Heap(random.Random(5))
    heap.fill("leaks", 60 * RATE, 20_000, 0, 120)
    heap.fill("loads", 30 * RATE, 20_000, 0, 2)
    life = life_of(heap.history(range(0, 125, 5)), STARTED)
    assert life is not None
    again = life_file.parse(life_file.written(life))
    assert again == life
    assert pooled([again, again]) == pooled([life, life])


GOOD: dict[str, Any] = {
    "schema": life_file.SCHEMA, "began": 1.0, "ended": 9.0, "seconds": 8.0, "rate": 1024.0, "rest": 0.0,
    "gains": [[["f", "/a.py", 1], ["g", "/b.py", 2], [[1, 2, 3], [0, 0, 0], [1, 2, 3]], [[0, 0], [3, 1], [6, 1], [8, 1]]]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "highwater.line-life/9"}, "this is a reader of 'highwater.line-life/1'"),
        ({"seconds": 0}, "a life of no time"),
        ({"rate": -1}, "-1.0 is no figure"),
        ({"rest": float("nan")}, "nan is no figure"),
        ({"gains": [["f"]]}, "ValueError"),
        ({"gains": [[*GOOD["gains"][0][:3], [[0, 0]]]]}, "1 moments instead of 4"),
        ({"gains": [[*GOOD["gains"][0][:2], [[1, 2]], GOOD["gains"][0][3]]]}, "ValueError"),
        ({"began": None}, "TypeError"),
    ],
    ids=str,
)
def test_a_damaged_life_says_what_is_wrong(change: dict[str, Any], says: str) -> None:
    assert life_file.parse(json.dumps(GOOD)).seconds == 8
    with pytest.raises(UsageError, match=says):
        life_file.parse(json.dumps({**GOOD, **change}))


ANY = st.recursive(st.none() | st.floats() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))


@given(st.text() | ANY.map(json.dumps), ANY)
def test_any_text_is_a_life_or_refused(text: str, gains: object) -> None:
    with pytest.raises(UsageError):
        life_file.parse(text)
    with contextlib.suppress(UsageError):
        assert life_file.parse(json.dumps({**GOOD, "gains": gains})).gains == {}  # nothing stands for no line


@given(st.integers(0, 400), st.text(max_size=3))
def test_any_cut_and_insertion_gives_a_life_or_is_refused(at: int, inserted: str) -> None:
    whole = json.dumps(GOOD)
    with contextlib.suppress(UsageError):
        life_file.parse(whole[:at] + inserted + whole[at + 1 :])
