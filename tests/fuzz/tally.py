"""How many inputs each target of fuzzing has been given, over all runs: tally.json, which is committed, and its table.

    python -m tests.fuzz.tally docs/reliability.md      the table of all runs so far

A run adds what it has really run (libFuzzer's own count, where atheris guides it) with the date and the code it was of.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests import counting
from tests.documents import write

__all__ = ["FILE", "MARKS", "add", "code", "counted", "table", "today"]

FILE = Path(__file__).parent / "tally.json"
MARKS = ("<!-- fuzz: written by tests/fuzz/tally.py -->", "<!-- end of fuzz -->")
ROOT = Path(__file__).parents[2]
TESTED = ("relay", "diagnostics")
AIM = 10_000_000
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def add(target: str, inputs: int, seconds: float, *, guided: bool, failed: bool, file: Path = FILE) -> None:
    """One run of one target; runs of one day on the same code are one entry."""
    lines = counting.read(file)
    same = {"target": target, "date": today(), "code": code(), "guided": guided}
    line = counting.entry(lines, same, {"inputs": 0, "seconds": 0.0, "failed": 0})
    line["inputs"] += inputs
    line["seconds"] = round(line["seconds"] + seconds, 1)
    line["failed"] += failed
    counting.write(file, lines)


def counted(target: str, command: list[str], file: Path = FILE) -> bool:
    """Run a command that has atheris at work, and add what libFuzzer says that it has run. Whether it found nothing."""
    began = time.monotonic()
    ran = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", errors="replace", check=False)
    found = EXECUTED.findall(ran.stderr)
    # Who ends it by hand has found nothing.
    failed = ran.returncode not in (0, -signal.SIGTERM, -signal.SIGINT)
    if failed or not found:
        print(ran.stderr[-6000:], file=sys.stderr)
    inputs = int(found[-1]) if found else 0
    print(f"{target}: {inputs:,} inputs in {time.monotonic() - began:.0f} s, exit code {ran.returncode}", flush=True)
    add(target, inputs, time.monotonic() - began, guided=True, failed=failed, file=file)
    return not failed


def today() -> str:
    """The date in UTC."""
    return str(datetime.datetime.now(datetime.UTC).date())


@functools.cache
def code() -> str:
    """The last commit of what is tested, "+" where that was changed since; "" where there is no git."""
    said = _git("log", "-1", "--format=%h", "--abbrev=9", "--", *TESTED)
    return said + "+" * bool(_git("status", "--porcelain", "--", *TESTED))


def _git(*words: str) -> str:
    with contextlib.suppress(OSError):
        ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
        return ran.stdout.strip()
    return ""


def table(lines: Iterable[dict[str, Any]]) -> str:
    """A row for each target, in Markdown."""
    rows: dict[str, dict[str, Any]] = {}
    dates = set()
    for line in lines:
        row = rows.setdefault(line["target"], {"inputs": 0, "guided": 0, "seconds": 0.0, "failed": 0})
        row["inputs"] += line["inputs"]
        row["guided"] += line["inputs"] if line["guided"] else 0
        row["seconds"] += line["seconds"]
        row["failed"] += line["failed"]
        dates.add(line["date"])
    total = sum(row["inputs"] for row in rows.values())
    share = f"{100 * total / AIM:.0f} % of the {AIM:,} aimed at"
    return "\n".join(
        (
            f"{total:,} inputs, {share}, from {min(dates, default='')} to {max(dates, default='')}.",
            "",
            "| target | inputs | of them guided by coverage | hours | runs that ended with a finding |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {row['inputs']:,} | {row['guided']:,} | {row['seconds'] / 3600:.2f} | {row['failed']} |"
                for name, row in sorted(rows.items())
            ),
        )
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), table(counting.read(FILE)), MARKS)
