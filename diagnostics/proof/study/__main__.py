"""`python -m diagnostics.proof.study FOLDER`: hours of experiments, and a table of their results.

Every scenario is run ten times and every well-behaved service thirty times, each run with a seed of its own; all of them once
before any of them a second time. Results are appended to FOLDER/results.jsonl as they come, so an interrupted study continues
when it is started again. FOLDER/table.md and FOLDER/study.json are written at the end, and when it is interrupted.

Exit code 0 where every scenario was decided the same way in each run and no well-behaved service was accused, 1 where not,
130 where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ...errors import DiagnosticsError, TargetError, UsageError
from ..experiment.experiment import run
from ..experiment.rounds import together
from ..experiment.session import Terminal, until_done
from .journal import SCHEMA, Journal
from .subjects import SUBJECTS
from .table import markdown, period, summaries, to_json

__all__ = ["main"]

_RUNS = 10
_WELL_BEHAVED_RUNS = 30


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        journal = Journal(arguments.folder)
        wanted = _wanted(arguments, journal)
        interrupted = not _run(wanted, journal, arguments)
        right = _write(journal, arguments.folder)
    except DiagnosticsError as error:
        print(f"study: {error}", file=sys.stderr)
        return error.exit_code
    if interrupted:
        print(f"interrupted; to go on: {_again(arguments)}", file=sys.stderr)
        return 130
    return 0 if right else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m diagnostics.proof.study")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the results; made where it is missing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--runs", type=int, default=_RUNS, help=f"of each scenario ({_RUNS})")
    parser.add_argument(
        "--well-behaved-runs", type=int, default=_WELL_BEHAVED_RUNS, help=f"of each service ({_WELL_BEHAVED_RUNS})"
    )
    parser.add_argument("--jobs", type=int, default=2, help="experiments at a time (2)")
    parser.add_argument("--minutes", type=float, help="begin no experiment after so many minutes")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table of what is there")
    return parser


def _wanted(arguments: argparse.Namespace, journal: Journal) -> list[tuple[str, int]]:
    """(name, number) of each run that has no result yet, low numbers first."""
    names = arguments.only or list(SUBJECTS)
    for name in names:
        if name not in SUBJECTS:
            raise UsageError(f"there is no {name!r} to study", remedy=f"known: {', '.join(SUBJECTS)}")
    if arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs} runs nothing", remedy="--jobs 1 or more")
    if arguments.table:
        return []
    done = journal.done()
    # Services have more runs than scenarios: both are spread evenly over the whole time.
    order = [
        (run / most, name, run)
        for name in names
        if (most := arguments.runs if SUBJECTS[name].accusable else arguments.well_behaved_runs) > 0
        for run in range(1, most + 1)
        if (name, run) not in done
    ]
    place = {name: index for index, name in enumerate(SUBJECTS)}
    return [(name, run) for _, name, run in sorted(order, key=lambda each: (each[0], place[each[1]]))]


def _run(wanted: Sequence[tuple[str, int]], journal: Journal, arguments: argparse.Namespace) -> bool:
    """Run the experiments `wanted`; False where it was interrupted."""
    until = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    try:
        with Terminal(Console(stderr=True, quiet=not sys.stderr.isatty())) as terminal:
            until_done(_all(wanted, journal, terminal, arguments.jobs, until))
    except KeyboardInterrupt:
        return False
    return True


async def _all(
    wanted: Sequence[tuple[str, int]], journal: Journal, terminal: Terminal, jobs: int, until: float | None
) -> None:
    waiting = iter(wanted)

    async def worker() -> None:
        for name, number in waiting:
            if until is not None and time.monotonic() > until:
                return
            subject = SUBJECTS[name]
            watch = terminal.experiment(f"{name}, run {number}")
            try:
                outcome = await run(subject.scenario, subject.sides, seed=number, capture=False, watch=watch)
            except TargetError as error:
                journal.add(name, number, error)
            else:
                journal.add(name, number, outcome)
            finally:
                watch.over()

    await together([worker() for _ in range(jobs)])


def _write(journal: Journal, folder: Path) -> bool:
    """Write table.md and study.json, print the table; returns whether every run so far was right."""
    results = list(journal.results())
    subjects = summaries(results)
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()} {platform.machine()},"
        f" Python {platform.python_version()}; {period(results)}"
    )
    table = markdown(subjects)
    (folder / "table.md").write_text(f"{machine}\n\n{table}", encoding="utf-8")
    document = {"schema": SCHEMA, "machine": machine, "subjects": to_json(subjects)}
    (folder / "study.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{machine}\n\n{table}", end="")
    return all(summary.right for summary in subjects)


def _again(arguments: argparse.Namespace) -> str:
    return f"python -m diagnostics.proof.study {arguments.folder}"


if __name__ == "__main__":
    raise SystemExit(main())
