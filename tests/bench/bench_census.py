"""What an objects capture of a large service costs, and how often the intervals of its figures hold the truth.

    python tests/bench/bench_census.py [OBJECTS] [TRIALS] [--heap NAME]

Heaps of about OBJECTS objects (5 million) are looked at twice, with growth in between, and what grew is traced, as a capture
does: `records` (instances, dictionaries, lists), `responses` (what a proxy for language models keeps of each request), `lists`,
`strings`. CPU and wall-clock seconds of both children are told, with the extension and without it. Then TRIALS times a small
heap is looked at, up to 60 % of it is replaced, and it is looked at again, by a sample of about 6 % and in full: `held` is in
how many cases the true growth of a type lay within the margin of the estimated one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from diagnostics.agent.readings import objects, sampling
from diagnostics.agent.readings.newness import FirstLook
from diagnostics.agent.readings.walk import in_python, steps
from diagnostics.monitor.captures.kinds.margins import Margins


class Record:
    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"user-{number}"
        self.tags = [number, str(number)]
        self.meta = {"a": f"v{number}", "b": number * 1.5}


class Message:
    def __init__(self, number: int) -> None:
        self.content = f"hello {number}" * 3
        self.role = "assistant"


class Usage:
    def __init__(self, number: int) -> None:
        self.prompt = number
        self.completion = number + 7.0


class Response:
    def __init__(self, number: int) -> None:
        self.id = f"chatcmpl-{number}"
        self.choices = [Message(number)]
        self.usage = Usage(number)
        self.hidden = {
            "headers": {"x-a": f"{number}", "x-b": f"{number + 1}", "x-c": "c"},
            "cost": number * 0.1,
            "meta": {"list": [number, {"k": f"z{number}"}], "t": (number, f"t{number}")},
        }


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


# What a heap consists of, and how many objects each of these is.
HEAPS: dict[str, tuple[Callable[[int], Any], int]] = {
    "records": (Record, 8),
    "responses": (Response, 19),
    "lists": (lambda number: [[number * 1.5], [f"x{number}"], []], 6),
    "strings": (lambda number: f"string number {number}", 1),
}
_EXTENSION = "diagnostics.agent.readings.walk._walk"
NAMES = (*(f"__main__.{kind.__name__}" for kind in (Session, Slotted, Bag)), "str", "float", "list")


@contextmanager
def looking_at(everything_up_to: int, some: int) -> Any:
    before = sampling._ALL, sampling._SOME, sampling._ALL_BLOCKS
    sampling._ALL, sampling._SOME, sampling._ALL_BLOCKS = everything_up_to, some, 1 << 40
    try:
        yield
    finally:
        sampling._ALL, sampling._SOME, sampling._ALL_BLOCKS = before


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work` and its CPU seconds, from a forked child, as the agent's are."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        gc.disable()
        began, cpu = time.monotonic(), os.times()
        found = work()
        used = os.times()
        with os.fdopen(write_end, "w") as answer:
            seconds = [used.user - cpu.user, used.system - cpu.system, time.monotonic() - began]
            json.dump({**found, "cpu": seconds}, answer)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        result: dict[str, Any] = json.load(answer)
    os.waitpid(pid, 0)
    return result


def cost(heap: str, many: int) -> None:
    gc.disable()
    make, objects_each = HEAPS[heap]
    kept = [make(number) for number in range(many // objects_each)]
    first = FirstLook()
    before = in_child(lambda: objects.census(mark=first))
    more = [make(-number) for number in range(100_000 // objects_each)]
    after = in_child(lambda: objects.census(since=first, tracing=objects.Tracing(12)))
    first.close()
    user, system, wall = (sum(both) for both in zip(before["cpu"], after["cpu"], strict=True))
    share = before["sample"]["share"] if before["sample"] else 1.0
    print(
        f"{heap}, {'in Python' if steps.kinds is in_python.kinds else 'with the extension'}: {before['objects']:,} objects, "
        f"{share:.0%} of the small ones looked at: first look {before['cpu'][0]:.1f} s of user CPU, second with the paths "
        f"{after['cpu'][0]:.1f} s; both {user:.1f} s + {system:.1f} s of the system's, {wall:.1f} s on the clock, load average "
        f"{os.getloadavg()[0]:.1f}",
        flush=True,
    )
    del kept, more
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("objects", nargs="?", type=int, default=5_000_000)
    parser.add_argument("trials", nargs="?", type=int, default=60)
    parser.add_argument("--heap", choices=[*HEAPS], action="append")
    given = parser.parse_args()
    for heap in given.heap or HEAPS:
        cost(heap, given.objects)
        if steps.kinds is not in_python.kinds:
            code = f"import sys; sys.modules[{_EXTENSION!r}] = None; sys.path[:0] = {sys.path!r}; "
            code += f"import bench_census; bench_census.cost({heap!r}, {given.objects})"
            subprocess.run([sys.executable, "-c", code], check=True)
    truth(given.trials)


if __name__ == "__main__":
    main()
