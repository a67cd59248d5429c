"""`diagnostics verify` with an app of one's own, and with scenarios that cannot be run to their end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pytest

from diagnostics.analysis.decision import Decision
from diagnostics.commands import verify
from diagnostics.errors import TargetError, UsageError
from diagnostics.proof.experiment import Outcome, SideOutcome
from diagnostics.proof.scenario import BROKEN, FIXED, Scenario


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verify.configure(parser)
    return parser.parse_args([*words, "--no-capture"])


def run(monkeypatch: pytest.MonkeyPatch, words: Sequence[str], experiment: Any) -> int:
    monkeypatch.setattr(verify, "run_scenario", experiment)
    return verify.run(parsed(*words))


def undecided(known: Scenario, sides: Sequence[str], **_: object) -> Outcome:
    return Outcome(known, 7, [SideOutcome(side, known.apps[side], known.expected[side]) for side in sides], 0.0)


def test_an_app_of_ones_own_gets_nothing_that_belongs_to_the_scenarios_app(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Scenario] = []

    def experiment(known: Scenario, sides: Sequence[str], **_: object) -> Outcome:
        seen.append(known)
        return undecided(known, sides)

    run(monkeypatch, ["missing_write_timeout"], experiment)
    run(monkeypatch, ["missing_write_timeout", "--fixed", "mine:app"], experiment)
    run(monkeypatch, ["missing_write_timeout", "--broken", "mine:app"], experiment)
    assert [FIXED in known.options for known in seen] == [True, False, True]
    assert seen[1].apps[FIXED] == "mine:app"


def test_what_is_not_verified_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, ["stuck_drain", "orphaned_task"], undecided) == 1
    assert "not verified: stuck_drain, orphaned_task" in capsys.readouterr().out


def test_a_scenario_that_fails_is_named_and_the_others_are_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def experiment(known: Scenario, sides: Sequence[str], **_: object) -> Outcome:
        ran.append(known.name)
        if known.name == "orphaned_task":
            raise TargetError("the fixed app ended with exit code 7", code="target_died")
        return undecided(known, sides)

    with pytest.raises(TargetError, match=r"^orphaned_task: the fixed app ended with exit code 7") as caught:
        run(monkeypatch, ["orphaned_task", "stuck_drain"], experiment)
    assert ran == ["orphaned_task", "stuck_drain"]
    assert caught.value.exit_code == 3
    assert "not verified: stuck_drain" in capsys.readouterr().out


def test_an_app_of_ones_own_stands_for_one_scenario_only() -> None:
    arguments = parsed("orphaned_task", "stuck_drain", "--fixed", "mine:app")
    with pytest.raises(UsageError, match="exactly one scenario"):
        verify.run(arguments)


def test_an_undecided_side_is_not_verified() -> None:
    assert SideOutcome(BROKEN, "app", Decision.LEAK).verified is False
