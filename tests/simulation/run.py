"""Many seeds one after the other; what came of each stands in a journal, and in a table. One that fails is shrunk."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import json
import logging
import platform
import time
from pathlib import Path
from typing import Any

from tests.chaos.run import write

from .world import Looks, live  # isort: skip  # the clock before the relay
import simloop

from simloop import _explore, _run, _shrink  # isort: skip

__all__ = ["MARKS", "main", "outcome_of", "table"]

MARKS = ("<!-- simulation: written by make simulate -->", "<!-- end of simulation -->")
SHRINK_RUNS = 40


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


def table(lines: list[dict[str, Any]]) -> str:
    """The journal in Markdown."""
    cpu = sum(line["cpu_seconds"] for line in lines)
    wrong = [line for line in lines if line["wrong"]]
    largest: dict[str, int] = {}
    for line in lines:
        for name, nbytes in line["largest"].items():
            largest[name] = max(largest.get(name, 0), nbytes)
    rows = [
        f"{datetime.datetime.now(datetime.UTC).date()}, Python {platform.python_version()}: {len(lines)} seeds,",
        f"{sum(line['steps'] for line in lines):,} steps with the bytes counted after each,",
        f"{60 * len(lines) / cpu if cpu else 0:.0f} seeds a minute of one core's time.",
        f"Seeds with anything wrong: {len(wrong)}.",
        "",
        "| account | most bytes that any step saw |",
        "|---|---|",
        *(f"| {name} | {nbytes:,} |" for name, nbytes in sorted(largest.items())),
    ]
    if wrong:
        rows += ["", "| seed | what was wrong |", "|---|---|"]
        rows += [f"| {line['seed']} | {line['wrong'][:160].replace('|', '/')} |" for line in wrong[:20]]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one again; where it fails, shrink its schedule")
    parser.add_argument("--seeds", type=int, default=100_000, help="how many, from 0 on (default 100,000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no seed after so long")
    parser.add_argument("--journal", type=Path, default=Path("report/simulation.jsonl"), help="where outcomes are kept")
    parser.add_argument("--write", type=Path, help="put the table of the journal into this document")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the relay's log of thousands of streams
    if options.seed is not None:
        outcome = outcome_of(options.seed)
        print(json.dumps(outcome))
        if outcome["wrong"]:
            print(shrunk(options.seed))
        return bool(outcome["wrong"])
    options.journal.parent.mkdir(parents=True, exist_ok=True)
    lines = _read(options.journal)
    done = {line["seed"] for line in lines}
    until = time.perf_counter() + options.seconds
    failed = 0
    with options.journal.open("a") as journal:
        for seed in range(options.seeds):
            if time.perf_counter() > until:
                break
            if seed in done:
                continue
            lines.append(outcome_of(seed))
            journal.write(json.dumps(lines[-1]) + "\n")
            journal.flush()
            if lines[-1]["wrong"]:
                failed += 1
                print(
                    f"seed {seed}: {lines[-1]['wrong'][:600]}\n  again: python -m tests.simulation --seed {seed}",
                    flush=True,
                )
    print(table(lines))
    if options.write:
        write(options.write, table(lines), MARKS)
    return bool(failed)


def _read(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
