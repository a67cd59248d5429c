"""A reading that is dear is made less often; one that is cheap is made each time."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.agent.reading_cache import ReadingCache, Stretches


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
