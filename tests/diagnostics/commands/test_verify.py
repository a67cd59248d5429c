"""`diagnostics verify` with an app of one's own, and with scenarios that cannot be run to their end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.decision import Decision, Judgement
from diagnostics.commands import verify
from diagnostics.errors import TargetError, UsageError
from diagnostics.proof.experiment.experiment import Outcome, SideOutcome
from diagnostics.proof.scenario import BROKEN, FIXED, Scenario


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verify.configure(parser)
    return parser.parse_args([*words, "--no-capture"])


def run(monkeypatch: pytest.MonkeyPatch, words: Sequence[str], experiments: Any) -> int:
    monkeypatch.setattr(verify, "run_scenarios", experiments)
    return verify.run(parsed(*words))


def undecided(wanted: Sequence[tuple[Scenario, Sequence[str]]], **_: object) -> list[Outcome | TargetError]:
    return [
        Outcome(known, 7, [SideOutcome(side, known.apps[side], known.expected[side]) for side in sides], 0.0)
        for known, sides in wanted
    ]


def test_an_app_of_ones_own_gets_nothing_that_belongs_to_the_scenarios_app(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Scenario] = []

    def experiments(wanted: Sequence[tuple[Scenario, Sequence[str]]], **_: object) -> list[Outcome | TargetError]:
        seen.extend(known for known, _ in wanted)
        return undecided(wanted)

    run(monkeypatch, ["missing_write_timeout"], experiments)
    run(monkeypatch, ["missing_write_timeout", "--fixed", "mine:app"], experiments)
    run(monkeypatch, ["missing_write_timeout", "--broken", "mine:app"], experiments)
    assert [FIXED in known.options for known in seen] == [True, False, True]
    assert seen[1].apps[FIXED] == "mine:app"


def test_what_is_not_verified_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, ["stuck_drain", "orphaned_task"], undecided) == 1
    assert "not verified: stuck_drain, orphaned_task" in capsys.readouterr().out


def test_a_scenario_that_fails_is_named_beside_what_came_out_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def experiments(wanted: Sequence[tuple[Scenario, Sequence[str]]], **_: object) -> list[Outcome | TargetError]:
        failure = TargetError("the fixed app ended with exit code 7", code="target_died")
        return [failure if known.name == "orphaned_task" else undecided([(known, sides)])[0] for known, sides in wanted]

    with pytest.raises(TargetError, match=r"^orphaned_task: the fixed app ended with exit code 7") as caught:
        run(monkeypatch, ["orphaned_task", "stuck_drain"], experiments)
    assert caught.value.exit_code == 3
    assert "not verified: stuck_drain" in capsys.readouterr().out


RELAY_FILE = """
command = "{python} -m mine --port {port}"
source = "mine/"
[environment]
UPSTREAM = "{upstream}"
[scenarios.no_admission.environment]
LIMIT = "4"
[scenarios.zombie_subscribers]
skip = "it has no topics"
"""


def test_a_relay_of_ones_own_stands_beside_the_apps_with_what_each_scenario_tells_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(RELAY_FILE, encoding="utf-8")
    seen: list[tuple[Scenario, Sequence[str]]] = []

    def experiments(wanted: Sequence[tuple[Scenario, Sequence[str]]], **_: object) -> list[Outcome | TargetError]:
        seen.extend(wanted)
        return undecided(wanted)

    names = ["no_admission", "orphaned_task", "zombie_subscribers"]
    assert run(monkeypatch, [*names, "--relay", str(file)], experiments) == 1
    assert [list(sides) for _, sides in seen] == [["broken", "fixed", "relay"]] * 2 + [["broken", "fixed"]]
    relays = [known.relay for known, _ in seen]
    assert [relay and dict(relay.environment) for relay in relays] == [
        {"UPSTREAM": "{upstream}", "LIMIT": "4"},
        {"UPSTREAM": "{upstream}"},
        None,
    ]
    assert seen[0][0].expected["relay"] is Decision.BOUNDED
    assert seen[0][0].source_of("relay") == "mine/"
    assert "zombie_subscribers: the relay is not run, it has no topics" in capsys.readouterr().out
    seen.clear()
    run(monkeypatch, [*names, "--relay", str(file), "--relay-alone"], experiments)
    assert [(known.name, list(sides)) for known, sides in seen] == [
        ("no_admission", ["relay"]),
        ("orphaned_task", ["relay"]),
    ]


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ("command = ", "is no TOML"),
        ("[environment]", "command is missing"),
        ("command = 7", "command is 7, not a text"),
        ('command = "relay serve"', r"has no \{port\}"),
        ('command = "x {port}"\nports = 3', "ports is unknown"),
        ('command = "x {port}"\nenvironment = 3', "environment is 3, not a table"),
        ('command = "x {port}"\n[environment]\nA = 3', "environment.A is 3, not a text"),
        ('command = "x {port}"\n[scenarios.orphan]', "scenarios.orphan is unknown"),
        ('command = "x {port}"\n[scenarios.orphaned_task]\nskip = true', "orphaned_task.skip is True, not a text"),
    ],
)
def test_a_relay_file_that_does_not_say_how_is_refused_with_the_place(tmp_path: Path, told: str, what: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(told, encoding="utf-8")
    with pytest.raises(UsageError, match=what):
        verify.run(parsed("orphaned_task", "--relay", str(file)))


def test_a_relay_alone_without_a_relay_is_refused() -> None:
    with pytest.raises(UsageError, match="which relay"):
        verify.run(parsed("orphaned_task", "--relay-alone"))


def test_an_app_of_ones_own_stands_for_one_scenario_only() -> None:
    arguments = parsed("orphaned_task", "stuck_drain", "--fixed", "mine:app")
    with pytest.raises(UsageError, match="exactly one scenario"):
        verify.run(arguments)


def test_an_undecided_side_is_not_verified() -> None:
    assert SideOutcome(BROKEN, "app", Decision.LEAK).verified is False


@pytest.mark.parametrize(("decision", "code"), [(Decision.LEAK, 0), (Decision.INCONCLUSIVE, 0), (Decision.BOUNDED, 1)])
def test_a_self_test_is_passed_where_no_broken_app_is_taken_for_a_fix(
    decision: Decision, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def experiments(wanted: Sequence[tuple[Scenario, Sequence[str]]], **_: object) -> list[Outcome | TargetError]:
        found: list[Outcome | TargetError] = []
        for known, sides in wanted:
            assert list(sides) == [FIXED]
            assert known.apps[FIXED] == known.apps[BROKEN]
            assert FIXED not in known.options
            finding = Judgement(decision, 4, {}, {})
            found.append(
                Outcome(known, 7, [SideOutcome(FIXED, known.apps[FIXED], Decision.BOUNDED, finding=finding)], 0.0)
            )
        return found

    assert run(monkeypatch, ["missing_write_timeout", "--self-test"], experiments) == code
    assert ("accepted: missing_write_timeout" in capsys.readouterr().out) is (code == 1)


def test_a_self_test_takes_no_other_apps() -> None:
    with pytest.raises(UsageError, match="apps of its own"):
        verify.run(parsed("orphaned_task", "--self-test", "--fixed", "mine:app"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--json", "{}/none/x.json"], "there is no folder"),
        (["--junit", "{}"], "is a folder"),
    ],
)
def test_what_could_not_be_written_is_said_before_anything_is_run(words: list[str], what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        verify.run(parsed("orphaned_task", *(word.format(tmp_path) for word in words)))


def test_a_report_goes_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file", encoding="utf-8")
    parser = argparse.ArgumentParser()
    verify.configure(parser)
    with pytest.raises(UsageError, match="--report"):
        verify.run(parser.parse_args(["orphaned_task", "--report", str(tmp_path / "report")]))
