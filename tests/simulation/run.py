"""Many seeds, in processes side by side; what came of them stands in record.json, and in a table. One that fails is shrunk."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import counting
from tests.documents import write
from tests.fuzz.tally import code, today

from .world import Looks, live  # isort: skip  # the clock before the relay
import simloop

from simloop import _explore, _run, _shrink  # isort: skip

__all__ = ["MARKS", "Record", "main", "outcome_of", "table"]

MARKS = ("<!-- simulation: written by make simulate -->", "<!-- end of simulation -->")
FILE = Path(__file__).parent / "record.json"
SHRINK_RUNS = 40
NIGHT_SECONDS = 8 * 3600
# A new process now and then: what a simulated loop leaves behind cannot always be ended.
SEEDS_A_PROCESS = 1000


def outcome_of(seed: int) -> dict[str, Any]:
    """What came of one seed: steps, the most bytes of each account, and what was wrong in words."""
    began = time.process_time()
    found: dict[str, Any] = {"seed": seed, "wrong": "", "steps": 0, "largest": {}}

    async def kept() -> None:
        truth = await live()
        found.update(steps=truth.steps, largest=truth.largest)

    loop = Looks(seed)
    error = _run.run_once(loop, kept)
    if error is not None:
        found["wrong"] = f"{type(error).__name__}: {error}"
    loop.look = None
    try:
        _run.finish(loop)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001
        loop.close()  # what a failed run has left cannot always be ended
    gc.collect()
    return {**found, "cpu_seconds": round(time.process_time() - began, 3)}


def shrunk(seed: int) -> str:
    """The failing seed again, and the steps of its schedule that had to go as they did."""
    for module in (_explore, _shrink):
        module.SimLoop = Looks  # type: ignore[attr-defined]  # theirs has nobody look
    report = simloop.explore(live, [seed], shrink=True, shrink_budget=SHRINK_RUNS)
    return report.render() if report is not None else "it does not fail again"


def table(entries: list[dict[str, Any]]) -> str:
    """The record in Markdown."""
    count, steps, cpu = (sum(entry[name] for entry in entries) for name in ("seeds", "steps", "cpu_seconds"))
    wrong = [line for entry in entries for line in entry["wrong"]]
    largest: dict[str, int] = {}
    for entry in entries:
        for name, nbytes in entry["largest"].items():
            largest[name] = max(largest.get(name, 0), nbytes)
    latest = entries[-1]
    speed = latest["seeds"] / latest["cpu_seconds"] if latest["cpu_seconds"] else 0.0
    rows = [
        f"From {entries[0]['date']} to {latest['date']}, Python {latest['python']}: {count:,} seeds, from 0 on,",
        f"{steps:,} steps with the bytes counted after each, {cpu / 60:,.1f} minutes of one core.",
        f"The latest: {60 * speed:.0f} seeds a minute of one core's time,",
        f"which is {2 * NIGHT_SECONDS * speed:,.0f} in a night of eight hours on two.",
        f"Seeds with anything wrong: {len(wrong)}.",
        "",
        "| account | most bytes that any step saw |",
        "|---|---|",
        *(f"| {name} | {nbytes:,} |" for name, nbytes in sorted(largest.items())),
    ]
    if wrong:
        rows += ["", "| seed | what was wrong |", "|---|---|"]
        rows += [f"| {seed} | {said[:160].replace('|', '/')} |" for seed, said in wrong[:20]]
    return "\n".join(rows)


class Record:
    """What was run so far: an entry for each day, state of the code, and Python. Committed, so that runs add up."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries = counting.read(file)
        self.next = sum(entry["seeds"] for entry in self.entries)

    def add(self, outcome: dict[str, Any]) -> None:
        same = {"date": today(), "code": code(), "python": platform.python_version()}
        empty = {"seeds": 0, "steps": 0, "cpu_seconds": 0.0, "largest": {}, "wrong": []}
        entry = counting.entry(self.entries, same, empty)
        entry["seeds"] += 1
        entry["steps"] += outcome["steps"]
        entry["cpu_seconds"] = round(entry["cpu_seconds"] + outcome["cpu_seconds"], 3)
        for name, nbytes in outcome["largest"].items():
            entry["largest"][name] = max(entry["largest"].get(name, 0), nbytes)
        if outcome["wrong"]:
            entry["wrong"].append([outcome["seed"], outcome["wrong"][:600]])

    def write(self) -> None:
        """Whole or not at all."""
        counting.write(self._file, self.entries)


class Many:
    """Seeds that none has run yet, in processes side by side. `until` by time.perf_counter."""

    def __init__(self, record: Record, most: int, until: float) -> None:
        self._record = record
        self._seeds = iter(range(record.next, record.next + most))
        self._until = until
        self._lock = threading.Lock()
        self.failed = 0

    def run(self, jobs: int) -> None:
        """In as many processes, each with a thread that waits for it."""
        with ThreadPoolExecutor(jobs) as threads:
            list(threads.map(lambda _: self._one_after_another(), range(jobs)))
        self._record.write()

    def _one_after_another(self) -> None:
        seed = self._next()
        while seed is not None:
            with subprocess.Popen(
                [sys.executable, "-m", "tests.simulation", "--seeds-of-stdin"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            ) as process:  # fmt: skip
                assert process.stdin is not None
                assert process.stdout is not None
                for _ in range(SEEDS_A_PROCESS):
                    print(seed, file=process.stdin, flush=True)
                    self._told(json.loads(process.stdout.readline()))
                    seed = self._next()
                    if seed is None:
                        break
                process.stdin.close()

    def _next(self) -> int | None:
        with self._lock:
            return next(self._seeds, None) if time.perf_counter() < self._until else None

    def _told(self, outcome: dict[str, Any]) -> None:
        with self._lock:
            self._record.add(outcome)
            if outcome["wrong"] or outcome["seed"] % 100 == 0:
                self._record.write()
        if outcome["wrong"]:
            self.failed += 1
            said = f"seed {outcome['seed']}: {outcome['wrong'][:600]}"
            print(f"{said}\n  again: python -m tests.simulation --seed {outcome['seed']}", flush=True)


def of_stdin() -> None:
    """The outcome of each seed that comes, a line of JSON for a line."""
    # What was imported lives as long as the process: left to the collector, its looks take two thirds of the time.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(outcome_of(int(line))), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one again; where it fails, shrink its schedule")
    parser.add_argument("--seeds", type=int, default=100_000, help="how many more (default 100,000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no seed after so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--seeds-of-stdin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--record", type=Path, default=FILE, help="what was run so far")
    parser.add_argument("--write", type=Path, help="put the table of the whole record into this document")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the relay's log of thousands of streams
    if options.seed is not None:
        outcome = outcome_of(options.seed)
        print(json.dumps(outcome))
        if outcome["wrong"]:
            print(shrunk(options.seed))
        return bool(outcome["wrong"])
    if options.seeds_of_stdin:
        of_stdin()
        return 0
    record = Record(options.record)
    many = Many(record, options.seeds, time.perf_counter() + options.seconds)
    many.run(options.jobs)
    print(table(record.entries))
    if options.write:
        write(options.write, table(record.entries), MARKS)
    return bool(many.failed)
