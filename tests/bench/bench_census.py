"""What a census of a large service costs, and how often the intervals of its figures hold the truth.

    python tests/bench/bench_census.py [RECORDS] [TRIALS]

A heap of RECORDS records (700,000: 5.6 million objects) is looked at twice, its growth traced, with a sample and without (CPU
seconds). Then TRIALS times a small heap is looked at, up to 60 % of it is replaced, and it is looked at again, by a sample of
about 6 % and in full: `held` is in how many cases the true growth of a type lay within the margin of the estimated one.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from diagnostics.agent.readings import objects, sampling
from diagnostics.agent.readings.newness import FirstLook
from diagnostics.monitor.captures.kinds.margins import Margins


class Record:
    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"user-{number}"
        self.tags = [number, str(number)]
        self.meta = {"a": f"v{number}", "b": number * 1.5}


class Session:
    def __init__(self) -> None:
        self.events = [1.5]
        self.name = str(random.random())


class Slotted:
    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = random.random()


class Bag(dict[str, int]):
    pass


GROWN = ["__main__.Record", "str", "list", "dict"]
NAMES = (*(f"__main__.{kind.__name__}" for kind in (Session, Slotted, Bag)), "str", "float", "list")


@contextmanager
def looking_at(everything_up_to: int, some: int) -> Any:
    before = sampling._ALL, sampling._SOME
    sampling._ALL, sampling._SOME = everything_up_to, some
    try:
        yield
    finally:
        sampling._ALL, sampling._SOME = before


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work` and its CPU seconds, from a forked child, as the agent's are."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        gc.disable()
        began = time.process_time()
        found = work()
        with os.fdopen(write_end, "w") as answer:
            json.dump({**found, "cpu": time.process_time() - began}, answer)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        result: dict[str, Any] = json.load(answer)
    os.waitpid(pid, 0)
    return result


def cost(records: int) -> None:
    gc.disable()
    kept = [Record(number) for number in range(records)]
    tracked = len(gc.get_objects())
    for words, everything_up_to in (("with a sample", sampling._ALL), ("in full", 1 << 40)):
        with looking_at(everything_up_to, sampling._SOME):
            first = FirstLook()
            before = in_child(lambda first=first: objects.census(mark=first))  # type: ignore[misc]
            more = [Record(number) for number in range(20_000)]
            after = in_child(lambda first=first: objects.census(since=first))  # type: ignore[misc]
            ways = in_child(lambda first=first: objects.explain(GROWN, 12, first=first))  # type: ignore[misc]
            first.close()
            print(
                f"{words}: {before['objects']:,} objects, {tracked:,} tracked: {before['cpu']:.1f} s and {after['cpu']:.1f} s "
                f"for the looks, {ways['cpu']:.1f} s for the paths"
            )
            del more
    del kept
    gc.enable()


def truth(trials: int) -> None:
    held = tried = 0
    share = 0.0
    for trial in range(trials):
        random.seed(trial)
        kept: list[Any] = [random.choice((Session, Slotted, Bag))() for _ in range(30_000)]
        first = FirstLook()
        with looking_at(1 << 40, 1):
            true_before = in_child(objects.census)["types"]
        with looking_at(0, 4000):
            before = in_child(lambda first=first: objects.census(mark=first))  # type: ignore[misc]
            replaced = random.random() * 0.6
            kept = [each for each in kept if random.random() > replaced]
            kept += [random.choice((Session, Slotted, Bag))() for _ in range(random.randrange(20_000))]
            after = in_child(lambda first=first: objects.census(since=first))  # type: ignore[misc]
        with looking_at(1 << 40, 1):
            true_after = in_child(objects.census)["types"]
        first.close()
        margins = Margins(before, after)
        share = after["sample"]["share"]
        for name in NAMES:
            told = after["types"][name][1] - before["types"][name][1]
            true = true_after[name][1] - true_before[name][1]
            held += abs(told - true) <= margins.of(name)["margin_bytes"]
            tried += 1
    print(f"share of the small objects {share:.1%}: held {held} of {tried}")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    cost(given[0] if given else 700_000)
    truth(given[1] if len(given) > 1 else 60)
