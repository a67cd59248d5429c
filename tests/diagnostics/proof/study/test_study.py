"""A study goes on where it was, and its table says what came out: a false alarm, a change of mind, a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.decision import Decision, Interval, Judgement, Measure
from diagnostics.errors import TargetError, TargetSilentError
from diagnostics.proof.experiment.experiment import Outcome, SideOutcome
from diagnostics.proof.study.__main__ import main
from diagnostics.proof.study.journal import Journal
from diagnostics.proof.study.subjects import SUBJECTS
from diagnostics.proof.study.table import markdown, summaries
from diagnostics.proof.study.well_behaved import WELL_BEHAVED

STUDY = [sys.executable, "-m", "diagnostics.proof.study"]


def outcome(name: str, *decisions: Decision, mean: float = 100.0) -> Outcome:
    subject = SUBJECTS[name]
    sides = []
    for side, decision in zip(subject.sides, decisions, strict=True):
        interval = Interval(mean, mean - 1, mean + 1, 4, 0.01, 0.0)
        finding = Judgement(decision, 4, {Measure.REMAINS: interval}, {Measure.REMAINS: 1000.0})
        expected = subject.scenario.expected[side]
        sides.append(SideOutcome(side, subject.scenario.apps[side], expected, finding=finding))
    return Outcome(subject.scenario, 1, sides, began=0.0, seconds=20.0)


def right(journal: Journal) -> dict[str, bool]:
    return {summary.name: summary.right for summary in summaries(journal.results())}


def test_every_run_is_kept_and_known_again(tmp_path: Path) -> None:
    Journal(tmp_path).add("orphaned_task", 1, outcome("orphaned_task", Decision.LEAK, Decision.BOUNDED))
    Journal(tmp_path).add("sawtooth", 3, TargetError("it ended", code="target_died"))
    again = Journal(tmp_path)
    assert again.done() == {("orphaned_task", 1), ("sawtooth", 3)}
    first, second = again.results()
    assert first["sides"]["broken"]["decision"] == "LEAK"
    assert first["sides"]["fixed"]["intervals"]["remains"]["mean"] == 100.0
    assert second["failure"]["code"] == "target_died"


def test_another_answer_or_a_failure_is_not_the_same_each_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for run in (1, 2):
        journal.add("orphaned_task", run, outcome("orphaned_task", Decision.LEAK, Decision.BOUNDED))
        journal.add("undying_ticker", run, outcome("undying_ticker", Decision.LEAK, Decision.BOUNDED))
        journal.add("stuck_drain", run, outcome("stuck_drain", Decision.UNBOUNDED, Decision.BOUNDED))
    assert set(right(journal).values()) == {True}
    journal.add("undying_ticker", 3, outcome("undying_ticker", Decision.LEAK, Decision.INCONCLUSIVE))
    journal.add("stuck_drain", 3, TargetError("the fixed app\nended"))
    assert right(journal) == {"orphaned_task": True, "undying_ticker": False, "stuck_drain": False}
    table = markdown(summaries(journal.results()))
    assert "| undying_ticker | 3 | 3 LEAK | 0.10 | 2 BOUNDED, 1 INCONCLUSIVE | 0.10 | 20 | no |" in table
    assert "- stuck_drain: the fixed app ended" in table


def test_a_busy_machine_is_no_answer_and_the_run_is_still_to_come(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("sawtooth", 1, TargetSilentError("it could be read only 5 times", code="machine_too_busy"))
    assert journal.done() == set()
    assert "too busy for a run, which was then run again: sawtooth 1." in markdown(summaries(journal.results()))
    journal.add("sawtooth", 1, outcome("sawtooth", Decision.BOUNDED))
    assert journal.done() == {("sawtooth", 1)}
    assert right(journal) == {"sawtooth": True}


@pytest.mark.parametrize(
    ("decision", "innocent"), [(Decision.BOUNDED, True), (Decision.INCONCLUSIVE, True), (Decision.LEAK, False)]
)
def test_an_open_question_is_no_accusation(tmp_path: Path, decision: Decision, innocent: bool) -> None:
    journal = Journal(tmp_path)
    journal.add("filling_cache", 1, outcome("filling_cache", decision, mean=500.0))
    assert right(journal) == {"filling_cache": innocent}
    accused = 0 if innocent else 1
    assert f"| filling_cache | 1 | 1 {decision} | {accused} | 0.50 | 20 |" in markdown(summaries(journal.results()))
    assert main([str(tmp_path), "--table"]) == accused
    told = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert told["subjects"][0]["decisions"] == {"fixed": {str(decision): 1}}
    assert "filling_cache" in (tmp_path / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", ["{", "[]", '{"schema": "other/1"}', '{"name": "x"}'])
def test_a_file_of_something_else_is_refused_with_its_line(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path)
    journal.add("sawtooth", 1, outcome("sawtooth", Decision.BOUNDED))
    with journal.path.open("a") as file:
        file.write(line + "\n")
    assert main([str(tmp_path), "--table"]) == 2
    assert "results.jsonl, line 2" in capsys.readouterr().err


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--only", "sawtoth"]) == 2
    assert "sawtooth" in capsys.readouterr().err


def test_runs_without_a_result_are_run_the_first_ones_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []

    async def experiment(scenario: Any, sides: Any, *, seed: int, **_: object) -> Outcome:
        ran.append((scenario.name, seed))
        if ran.count((scenario.name, seed)) == 1 and (scenario.name, seed) == ("lazy_imports", 1):
            raise TargetError("it ended")
        return outcome(scenario.name, *(scenario.expected[side] for side in sides))

    monkeypatch.setattr("diagnostics.proof.study.__main__.run", experiment)
    words = [str(tmp_path), "--jobs", "1", "--only", "orphaned_task", "lazy_imports", "--runs", "1"]
    assert main([*words, "--well-behaved-runs", "2"]) == 1, "a failure is a result"
    assert ran == [("lazy_imports", 1), ("orphaned_task", 1), ("lazy_imports", 2)]
    ran.clear()
    assert main([*words, "--well-behaved-runs", "3"]) == 1
    assert ran == [("lazy_imports", 3)]
    ran.clear()
    assert main([*words, "--well-behaved-runs", "9", "--minutes", "0"]) == 1
    assert ran == []


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_study_for_real_is_not_run_twice(tmp_path: Path) -> None:
    words = [*STUDY, str(tmp_path), "--only", "fragmentation", "--well-behaved-runs", "1"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| fragmentation | 1 |" in done.stdout
    (result,) = Journal(tmp_path).results()
    assert result["sides"]["fixed"]["rounds"] >= 4
    before = Journal(tmp_path).path.read_bytes()
    again = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=250, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert Journal(tmp_path).path.read_bytes() == before


def test_every_well_behaved_service_is_there() -> None:
    folder = Path(sys.modules[WELL_BEHAVED["sawtooth"].__class__.__module__].__file__ or "").parent
    modules = {path.stem for path in (folder / "study" / "well_behaved").glob("*.py")} - {"__init__"}
    named = {app.partition(":")[0].rpartition(".")[2] for known in WELL_BEHAVED.values() for app in known.apps.values()}
    assert modules == named - {"fixed"}
