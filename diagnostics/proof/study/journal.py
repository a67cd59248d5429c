"""One line of JSON for each experiment of a study, appended when it has ended.

An interrupted experiment has no line and is run again. A failed one has a line: a failure is a result of the study, too. Only
an experiment that failed because the machine was too busy has a line and is run again: it says nothing about its subject.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import TargetError, UsageError
from ..experiment.experiment import Outcome, SideOutcome
from ..report.versions import versions

__all__ = ["SCHEMA", "Journal", "too_busy"]

SCHEMA = "highwater.study/1"
_FILE = "results.jsonl"


class Journal:
    """The results in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / _FILE

    def results(self) -> Iterator[dict[str, Any]]:
        """The results so far, in the order of the experiments' ends. Raises UsageError for a malformed file."""
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                result = json.loads(line)
                if result["schema"] != SCHEMA:
                    raise ValueError(f"schema {result['schema']!r}, not {SCHEMA!r}")
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{self.path}, line {number}: {error}", remedy="give another folder, or take the line out"
                ) from error
            yield result

    def done(self) -> set[tuple[str, int]]:
        """(name, number) of each run with a result, those that failed on a busy machine left out."""
        return {(result["name"], result["run"]) for result in self.results() if not too_busy(result)}

    def add(self, name: str, run: int, result: Outcome | TargetError) -> None:
        """Append the result of a run."""
        line = {
            "schema": SCHEMA,
            "name": name,
            "run": run,
            "ended": time.time(),
            "load_average": os.getloadavg()[0],
            "versions": versions(),
            **(_failure(result) if isinstance(result, TargetError) else _outcome(result)),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def too_busy(result: Mapping[str, Any]) -> bool:
    """Whether a run failed because the busy machine allowed too few readings."""
    return "failure" in result and result["failure"]["code"] == "machine_too_busy"


def _failure(error: TargetError) -> dict[str, Any]:
    return {"failure": error.to_dict()}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": outcome.seed,
        "seconds": outcome.seconds,
        "verified": outcome.verified,
        "sides": {side.side: _side(side) for side in outcome.sides},
    }


def _side(side: SideOutcome) -> dict[str, Any]:
    finding = side.finding
    return {
        "decision": str(side.decision),
        "expected": str(side.expected),
        "rounds": 0 if finding is None else finding.rounds,
        "intervals": {}
        if finding is None
        else {str(name): asdict(interval) for name, interval in finding.intervals.items()},
        "least": {} if finding is None else {str(name): least for name, least in finding.least.items()},
        "figures": {str(measure): values for measure, values in side.figures.items() if values},
    }
