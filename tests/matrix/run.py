"""Runs the tests on every CPython that Highwater claims and that this machine has or can make; says which could not, and why.

    python tests/matrix/run.py                              the whole suite on all
    python tests/matrix/run.py --versions "3.12 3.14"       on some; "newest" and "another" (than this one) are words for one
    python tests/matrix/run.py --tests "tests/diagnostics"  some of the tests
    python tests/matrix/run.py --demo                       and `diagnostics demo`, which must end with 0
    python tests/matrix/run.py --no-long                    without the tests that are marked `long`
    python tests/matrix/run.py --again                      what fails is run once more, alone, and named if it passes then
    python tests/matrix/run.py --write docs/versions.md     puts the table there, between its two marks: each version's last run
                                                            of the whole suite, which is kept in report/matrix

Exit codes: 0 all that ran passed, and something ran (with --strict: all that was asked for; with --lenient: or nothing can be
had here), 1 otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from environments import InstallError, install, within
from interpreters import VERSIONS, Interpreter, Unavailable, find, of_words
from roots import CHECKOUT, ENVIRONMENTS
from table import Row, keep, kept, rendered, write

# Tests that start programs of Debian's are skipped in a root, unless the programs are put there.
_PACKAGES = CHECKOUT / "tests" / "debian-packages.txt"
_DEMO_SECONDS = 600
_SUITE = ["tests"]
_SHORT = ["-m", "not install and not long"]
_KEPT = CHECKOUT / "report" / "matrix"


@dataclass(frozen=True)
class Asked:
    """What is run on each version."""

    tests: list[str]
    packages: bool
    demo: bool
    workers: int
    long: bool
    again: bool

    @property
    def words(self) -> list[str]:
        """As pytest is given it."""
        return [*self.tests, *([] if self.long else _SHORT)]


def main() -> int:
    options = _options()
    asked = Asked(
        options.tests.split(),
        options.debian_packages,
        options.demo,
        options.workers,
        not options.no_long,
        options.again,
    )
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    rows = []
    for release in of_words(options.versions.split(), own):
        found = find(release)
        row = Row.missing(release, found.reason) if isinstance(found, Unavailable) else _run(found, asked)
        print(f"\n{row.summary}\n", flush=True)
        rows.append(row)
        if asked.words == _SUITE and row.ran:
            keep(_KEPT, row)
    print(rendered(rows, asked.words))
    if options.write:
        known = kept(_KEPT)
        write(Path(options.write), rendered([known[release] for release in VERSIONS if release in known], _SUITE))
    ran = [row.ran for row in rows]
    unfinished = not all(ran) if options.strict else not (options.lenient or any(ran))
    return 1 if unfinished or any(row.failed for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The tests on several versions of CPython")
    parser.add_argument("--versions", default=" ".join(VERSIONS), help="default: all")
    parser.add_argument(
        "--tests", default=" ".join(_SUITE), help="what pytest is given (default: all but the benchmarks)"
    )
    parser.add_argument("--demo", action="store_true", help="run `diagnostics demo` as well")
    parser.add_argument("--no-long", action="store_true", help="leave out the tests that are marked `long`")
    parser.add_argument("--again", action="store_true", help="run what has failed once more, alone")
    parser.add_argument("--debian-packages", action="store_true", help="install tests/debian-packages.txt in the roots")
    parser.add_argument("--workers", type=int, default=3, help="tests at a time (default: 3)")
    parser.add_argument("--strict", action="store_true", help="a version that cannot be had is a failure")
    parser.add_argument("--lenient", action="store_true", help="it is none if no version can be had")
    parser.add_argument("--write", metavar="FILE", help="put the table into FILE, between its two marks")
    return parser.parse_args()


def _run(interpreter: Interpreter, asked: Asked) -> Row:
    print(f"CPython {interpreter.version} of {interpreter.where}: installing", flush=True)
    try:
        python = install(interpreter) / "bin" / "python"
        if asked.packages and interpreter.root is not None:
            interpreter.root.install(_packages())
    except (InstallError, subprocess.CalledProcessError) as error:
        return Row.missing(interpreter.release, f"the installation failed: {error}")
    began = time.monotonic()
    code = _code()
    row = _pytest(interpreter, python, asked)
    if asked.demo:
        demo = within(interpreter, [str(python), "-m", "diagnostics", "demo"])
        ended = subprocess.run(demo, cwd=CHECKOUT, stdin=subprocess.DEVNULL, check=False, timeout=_DEMO_SECONDS)
        row.demo = "passed" if ended.returncode == 0 else f"ended with {ended.returncode}"
        row.failed += ended.returncode != 0
    row.seconds = time.monotonic() - began
    row.day, row.code = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), code
    return row


def _code() -> str:
    described = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(described, cwd=CHECKOUT, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def _pytest(interpreter: Interpreter, python: Path, asked: Asked) -> Row:
    row = Row(interpreter.release, interpreter.version, interpreter.where)
    # In the folder of the environments, which is at the same place inside a root and outside.
    with tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as cache:
        words = [*asked.words, "--ignore=tests/bench", "-q", "-o", f"cache_dir={cache}"]
        several = ["--numprocesses", str(asked.workers), "--dist", "worksteal"]
        cases = _cases(interpreter, python, [*words, *several], Path(cache), row)
        failed = {name for name, outcome in cases.items() if outcome == "failed"}
        row.skipped = sum(outcome == "skipped" for outcome in cases.values())
        row.passed = len(cases) - row.skipped - len(failed)
        if failed and asked.again and not row.failed:
            print(f"once more, alone: {', '.join(sorted(failed))}", flush=True)
            last = ["--last-failed", "--last-failed-no-failures", "none", "-p", "no:xdist"]
            told = _cases(interpreter, python, [*words, *last], Path(cache), row)
            row.unsteady = sorted(name for name in failed if told.get(name) == "passed")
            row.passed += len(row.unsteady)
            failed -= set(row.unsteady)
        row.failed += len(failed)
    return row


def _cases(
    interpreter: Interpreter, python: Path, words: Sequence[str], folder: Path, row: Row
) -> dict[str, Literal["passed", "skipped", "failed"]]:
    """Run pytest. Returns each test's outcome; what kept it from its end is a failure of the row."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", *words, f"--junitxml={report}"]
    ended = subprocess.run(within(interpreter, command), cwd=CHECKOUT, stdin=subprocess.DEVNULL, check=False)
    if not report.exists():
        row.failed += 1
        row.why = f"pytest ended with {ended.returncode} before it could report"
        return {}
    if ended.returncode not in (0, 1):
        row.failed += 1
        row.why = f"pytest ended with {ended.returncode}"
    return outcomes(report.read_text(encoding="utf-8"))


def outcomes(report: str) -> dict[str, Literal["passed", "skipped", "failed"]]:
    """Of each test in pytest's report in XML. One that failed, and whose fixture failed behind it, is one failure."""
    found: dict[str, Literal["passed", "skipped", "failed"]] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        if case.find("failure") is not None or case.find("error") is not None:
            found[name] = "failed"
        elif name not in found:
            found[name] = "passed" if case.find("skipped") is None else "skipped"
    return found


def _packages() -> list[str]:
    return [line for line in _PACKAGES.read_text(encoding="utf-8").split("\n") if line and not line.startswith("#")]


if __name__ == "__main__":
    sys.exit(main())
