"""A capture leaves a gap in the readings: what was found before it is still the verdict, and nothing is held over for ever."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.analysis.verdict.finding import Finding
from diagnostics.analysis.verdict.verdict import Verdict
from diagnostics.monitor.judging import judge as judging
from diagnostics.monitor.judging.judge import Judge

GROWS = Verdict(Finding("retained_objects", "high", "Objects grow.", (), culprit="app.Row"))
NOTHING = Verdict(Finding("inconclusive", "low", "There are too few readings.", ()))


class Process:
    pid, name = 7, "0"


class Snapshot:
    process = Process()

    def __init__(self, state: str = "answering") -> None:
        self.state = state


class Targets:
    @property
    def known(self) -> list[Any]:
        return self.workers()

    def workers(self) -> list[Any]:
        return [Process()]


class Captures:
    running = False

    def disturbs(self, _pid: int) -> bool:
        return self.running


@pytest.fixture
def captures() -> Captures:
    return Captures()


@pytest.fixture
def judge(captures: Captures, monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.setattr(judging, "time", Clock)
    Clock.now = 1000.0
    return Judge(Targets(), None, captures)  # type: ignore[arg-type]


class Clock:
    now = 1000.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


def held(judge: Judge, found: Verdict, state: str = "answering") -> Finding:
    return judge._held_over(Snapshot(state), 7, found).finding  # type: ignore[arg-type]


def test_what_was_found_before_a_capture_outlives_the_gap_that_it_leaves(judge: Judge, captures: Captures) -> None:
    """A capture's own gap turned the next verdicts into "inconclusive", just when somebody looked."""
    assert held(judge, GROWS).word == "retained_objects"
    captures.running = True
    during = held(judge, NOTHING)
    assert (during.word, during.confidence, during.culprit) == ("retained_objects", "high", "app.Row")
    captures.running = False
    Clock.now += 60
    after = held(judge, NOTHING)
    assert after.word == "retained_objects"
    assert after.says.endswith("(Found before the last capture, since which there are too few readings.)")
    # What the readings show once they are enough again stands in its place at once.
    calm = Verdict(Finding("load_only", "high", "Memory does not grow.", ()))
    assert held(judge, calm).word == "load_only"


def test_a_gap_excuses_nothing_for_long_and_no_agent_that_has_gone(judge: Judge, captures: Captures) -> None:
    held(judge, GROWS)
    assert held(judge, NOTHING).word == "inconclusive"  # no capture ran
    held(judge, GROWS)
    captures.running = True
    held(judge, NOTHING)
    assert held(judge, NOTHING, "silent").word == "inconclusive"
    captures.running = False
    held(judge, GROWS)
    Clock.now += 3600
    assert held(judge, NOTHING).word == "inconclusive"
