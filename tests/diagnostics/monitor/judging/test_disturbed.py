"""A capture leaves a gap in the readings: what was found before it is still the verdict, and nothing is held over for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from diagnostics.analysis.verdict.finding import Finding
from diagnostics.analysis.verdict.verdict import TOO_FEW, Verdict
from diagnostics.monitor.judging import judge as judging
from diagnostics.monitor.judging.judge import Judge

GROWS = Verdict(Finding("retained_objects", "high", "Objects grow.", (), culprit="app.Row"))
NOTHING = Verdict(Finding("inconclusive", "low", TOO_FEW, ()))


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


@pytest.mark.parametrize("confidence", ["low", "high"])
def test_readings_that_decide_nothing_are_no_gap(judge: Judge, captures: Captures, confidence: Any) -> None:
    """A cache was full, and was said to grow for two minutes more, as if nothing had been read since the capture."""
    held(judge, Verdict(replace(GROWS.finding, confidence=confidence)))
    captures.running = True
    undecided = Verdict(Finding("inconclusive", "low", "Growth is neither seen nor excluded: 98 s of readings.", ()))
    assert held(judge, undecided).word == "retained_objects"
    captures.running = False
    Clock.now += 60
    after = held(judge, undecided)
    if confidence == "low":
        assert after.says == undecided.finding.says
    else:
        assert after.word == "retained_objects"
        assert after.says.endswith("(Found before the last capture, since which growth is neither seen nor excluded.)")


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
