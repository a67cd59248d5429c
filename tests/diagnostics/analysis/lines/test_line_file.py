"""Looks at a live heap are read as they were written, or refused; whatever stands in the file."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.analysis.lines import file as line_file
from diagnostics.analysis.lines.growth import History
from diagnostics.analysis.lines.snapshot import Names
from diagnostics.errors import UsageError

from .planted_heap import RATE, STARTED, Heap


def leaking(times: Any) -> tuple[Heap, History]:
    heap = Heap(random.Random(5))
    heap.fill("leaks", 60 * RATE, 20_000, 0, times[-1])
    heap.fill("loads", 30 * RATE, 20_000, 0, 2)
    return heap, heap.history(times)


def read(text: str) -> tuple[line_file.Written, Names]:
    names = Names(lambda frame: False)
    return line_file.parse(text, names), names


def test_what_is_read_back_tells_the_same_growth() -> None:
    heap, history = leaking(range(0, 125, 5))
    text = line_file.written(7, STARTED, 10.0, history.names, history.looks)
    left, names = read(text)
    assert (left.pid, left.started, left.lasting) == (7, STARTED, 10.0)
    again = History(names, left.looks, type(history.now).of(heap.table(120), names, 120.0), history.time)
    before, after = history.since(STARTED + 30), again.since(STARTED + 30)  # a look that is written
    assert before is not None
    assert after is not None
    for one, other in zip(before[1], after[1], strict=True):
        assert other.name == one.name
        assert (other.grown, other.low, other.high) == pytest.approx((one.grown, one.low, one.high), rel=1e-4, abs=5e3)


def test_of_a_long_record_enough_is_written_for_every_window_and_no_more() -> None:
    _, history = leaking(range(0, 7200, 5))
    text = line_file.written(7, STARTED, 10.0, history.names, history.looks)
    left, _ = read(text)
    assert len(left.looks) < 25
    assert len(text) < 20_000
    ages = [7195 - look.at for look in left.looks]
    for window in (120, 600, 3600):
        assert any(0.8 * window <= age <= window for age in ages)
    assert ages[-1] == 0


GOOD = {
    "schema": line_file.SCHEMA, "pid": 7, "started": 1.0, "lasting": 10.0, "lines": [["f", "/a.py", 1, "f", "/a.py", 1]],
    "looks": [[5.0, 4.0, 0, 0, [0], [1, 2, 3]], [6.0, 5.0, 0, 0, [], []]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "highwater.lines/9"}, "this is a reader of 'highwater.lines/1'"),
        ({"looks": [[5.0, 4.0, 0, 0, [1], [1, 2, 3]]]}, "IndexError"),
        ({"looks": [[5.0, 4.0, 0, 0, [-1], [1, 2, 3]]]}, "a line below zero"),
        ({"looks": [[5.0, 4.0, 0, 0, [0], [1, 2]]]}, "another number of figures"),
        ({"looks": [[5.0, float("nan"), 0, 0, [0], [1, 2, 3]]]}, "nan is no figure"),
        ({"looks": list(reversed(GOOD["looks"]))}, "not in their order"),  # type: ignore[call-overload]
        ({"lines": [["f"]]}, "IndexError"),
        ({"pid": None}, "TypeError"),
    ],
    ids=str,
)
def test_a_damaged_file_says_what_is_wrong(change: dict[str, Any], says: str) -> None:
    assert read(json.dumps(GOOD))[0].looks[0].held()[0].value == 1
    with pytest.raises(UsageError, match=says):
        read(json.dumps({**GOOD, **change}))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.text('0-e9.[]{}",:aNi', max_size=4), st.integers(0, 400))
def test_whatever_the_text_is_looks_come_of_it_or_a_reason(at: int, more: str, cut: int) -> None:
    text = json.dumps(GOOD)
    damaged = text[: at % len(text)] + more + text[at % len(text) + cut % 7 :]
    try:
        left, names = read(damaged)
    except UsageError:
        return
    for look in left.looks:
        assert all(line < len(names.lines) for line in look.held())
