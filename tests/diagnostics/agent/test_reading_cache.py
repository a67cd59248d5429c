"""A reading that is dear is made less often; one that is cheap is made each time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.agent import reading_cache
from diagnostics.agent.encoding import encoded
from diagnostics.agent.reading_cache import ReadingCache, Stretches, sliced


class Machine:
    """A clock and a CPU that go on by what a reading costs, and no further."""

    def __init__(self, cost: float) -> None:
        self.now = self.used = 0.0
        self.cost = cost
        self.made = 0

    def make(self) -> int:
        self.used += self.cost
        self.made += 1
        return self.made

    def reading(self) -> Any:
        return ReadingCache(self.make, clock=lambda: self.now, cpu=lambda: self.used)


def test_a_cheap_reading_is_made_each_time() -> None:
    machine = Machine(cost=0.0005)
    read = machine.reading()
    assert [read(), read(), read()] == [1, 2, 3]


def test_a_dear_one_stays_good_for_two_hundred_times_its_cost() -> None:
    machine = Machine(cost=0.005)
    read = machine.reading()
    read()
    machine.now = 0.99
    assert read() == 1
    machine.now = 1.0
    assert read() == 2


def test_however_dear_it_is_not_older_than_two_seconds_and_a_half() -> None:
    machine = Machine(cost=0.05)
    read = machine.reading()
    read()
    machine.now = 2.5
    assert read() == 2


def test_what_could_not_be_read_is_not_remembered() -> None:
    def fails() -> None:
        raise RuntimeError("no")

    read = ReadingCache(fails)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            read()


def test_the_longest_stretch_is_between_two_rests_and_the_next_asker_begins_anew() -> None:
    machine = Machine(cost=0.0)
    stretches = Stretches(cpu=lambda: machine.used)
    for works in ((0.001, 0.004, 0.002), (0.003,)):
        stretches.begin()
        for number, work in enumerate(works):
            if number:
                stretches.pause()
                machine.used += 1.0  # others' while it slept
                stretches.resume()
            machine.used += work
        stretches.end("sample")
    told = stretches.told()["sample"]
    assert told == {
        "answers": 2,
        "cpu_seconds": pytest.approx(0.010),
        "longest_seconds": pytest.approx(0.004),
    }
    assert stretches.told() == {}


class Slow:
    """A machine on which each of the `things` takes `each` seconds of CPU; its agent sleeps where it rests."""

    def __init__(self, each: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used = self.slept = 0.0
        self.each = each
        self.stretches = Stretches(cpu=lambda: self.used, clock=lambda: self.used + self.slept)
        monkeypatch.setattr(reading_cache, "stretches", self.stretches)
        monkeypatch.setattr(reading_cache, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def parts(self, things: list[int]) -> Iterator[list[int]]:
        for part in sliced(things, cpu=lambda: self.used):
            self.used += self.each * len(part)
            yield part


@pytest.mark.parametrize("each", [1e-7, 1e-6, 5e-6, 2e-5], ids=["quick", "usual", "slow", "very slow"])
def test_a_long_list_keeps_the_gil_for_as_long_on_any_machine(each: float, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, things = Slow(each, monkeypatch), list(range(5000))
    machine.stretches.begin()
    assert [thing for part in machine.parts(things) for thing in part] == things
    machine.stretches.end("sample")
    told = machine.stretches.told()["sample"]
    # The first slice is of a size that no machine has told yet.
    assert told["longest_seconds"] <= max(0.0003, 32 * each)
    assert told["cpu_seconds"] == pytest.approx(5000 * each)
    # And it does not sleep after each handful where that is quick.
    assert machine.slept <= 5000 * each + 0.0001


def test_an_answer_that_is_late_already_rests_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is never idle gives the GIL back after five milliseconds only, and the monitor does not wait for long."""
    machine = Slow(1e-5, monkeypatch)
    monkeypatch.setattr(reading_cache, "sleep", lambda seconds: machine.sleep(0.005))
    machine.stretches.begin()
    assert sum(map(len, machine.parts(list(range(5000))))) == 5000
    assert machine.slept < 0.6  # where each tenth of a millisecond had been followed by five of sleep: 2.5 s


def test_a_call_that_works_without_the_gil_is_no_stretch_and_counts_as_cpu() -> None:
    machine = Machine(cost=0.0)
    stretches = Stretches(cpu=lambda: machine.used)
    stretches.begin()
    machine.used += 0.001

    def call() -> str:
        machine.used += 0.5
        return "answer"

    assert stretches.without_gil(call) == "answer"
    machine.used += 0.002
    stretches.end("sample")
    told = stretches.told()["sample"]
    assert (told["longest_seconds"], told["cpu_seconds"]) == (pytest.approx(0.002), pytest.approx(0.503))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
        max_leaves=30,
    )
)
def test_an_answer_encoded_in_slices_is_the_text_that_json_makes(value: Any) -> None:
    answer = {
        "version": 1,
        "result": {"fds": {"/stream": list(range(2000)), "none": None}, "value": value, "é": [0.5] * 501},
    }
    assert encoded(answer) == json.dumps(answer, separators=(",", ":"))
