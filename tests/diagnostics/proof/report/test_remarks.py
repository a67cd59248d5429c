"""Beside a decision stands what it rests on, what it has not seen, and what to do where it says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from diagnostics.analysis.decision import Measure, Plan, decide
from diagnostics.analysis.growth import Reading, Round
from diagnostics.proof.clients.address import RequestMessage
from diagnostics.proof.experiment.comparison import AFTER, BEFORE, comparison
from diagnostics.proof.experiment.experiment import Outcome, SideOutcome, least_of
from diagnostics.proof.report.remarks import basis, remarks
from diagnostics.proof.scenarios import scenario

LEAKS, FLAT, NOISY = [50_000.0, 50_100.0, 49_900.0, 50_000.0], [1.0, -1.0, 2.0, -2.0], [90_000.0, -80_000.0, 7e4, -6e4]
COMPARE = comparison(
    {BEFORE: "old {port}", AFTER: "new {port}"}, "/", RequestMessage(), streams=8, slow=0.5, slow_bytes_per_second=16_384,
    seconds=4.0, transient_seconds=2.0, least_bytes=4096, least_growth=32_768, plan=Plan(looks=(4,)),
)  # fmt: skip


def queues(fills: Callable[[float], float]) -> Round:
    """A round of four seconds with so many bytes in the kernel's queues after each time."""
    at_rest = Reading(0.0, 1000, 1000, 1, 3)
    readings = (replace(at_rest, time=t / 10, kernel_bytes=round(fills(t / 10))) for t in range(1, 41))
    return Round(0.0, 8, 8, at_rest, tuple(readings), at_rest)


def side(
    name: str, *, growth: list[float], remains: list[float], resident: list[float] | None = None, **more: object
) -> SideOutcome:
    made = SideOutcome(name, f"{name} app", COMPARE.expected[AFTER])
    made.rounds = [queues(lambda t: 0)] * 4
    for key, value in more.items():
        setattr(made, key, value)
    made.figures = {Measure.GROWTH: growth, Measure.REMAINS: remains, Measure.RESIDENT: resident or remains}
    made.finding = decide(made.figures, {**least_of(COMPARE, made), Measure.RESIDENT: 20_000.0}, COMPARE.plan)
    return made


def said(*sides: SideOutcome) -> str:
    return "\n".join(remarks(Outcome(COMPARE, 7, list(sides), 0.0)))


def test_a_decision_names_the_measure_that_it_stands_on() -> None:
    assert basis(side(AFTER, growth=FLAT, remains=LEAKS)) == "by bytes in use and by resident memory"
    assert basis(side(AFTER, growth=FLAT, remains=LEAKS, resident=FLAT)) == "by bytes in use"
    assert basis(side(AFTER, growth=FLAT, remains=FLAT, resident=LEAKS)).startswith(
        "by resident memory alone: no allocator"
    )
    assert basis(side(AFTER, growth=FLAT, remains=FLAT)) == "by bytes in use and by resident memory"
    unknown = side(AFTER, growth=FLAT, remains=FLAT, read="rss", why="libfast.so serves malloc and tells no figure")
    assert (
        basis(unknown) == "by resident memory alone, with a wider bound: libfast.so serves malloc and tells no figure"
    )
    assert basis(side(AFTER, growth=FLAT, remains=NOISY)) == ""


def test_what_is_undecided_comes_with_what_would_decide_it() -> None:
    told = said(side(AFTER, growth=FLAT, remains=[9_000.0, -8_000.0, 7_000.0, -6_000.0], resident=FLAT))
    assert re.search(
        r"after: undecided: bytes in use after the streams lies between -\d.* and \d.*, and 4,096 is what matters", told
    )
    assert re.search(r"try --streams (\d+), so that \d+ times as many end", told)
    close = said(side(AFTER, growth=FLAT, remains=[4_096.0, 4_100.0, 4_092.0, 4_096.0], resident=FLAT))
    assert "its mean of 4,096 is too close to that; say what matters to you: --least" in close
    slow = said(side(AFTER, growth=[90_000.0, -70_000.0, 60_000.0, -50_000.0], remains=FLAT))
    assert re.search(r"growth of open streams lies between .* try --seconds \d+, or more rounds", slow)


def test_a_defect_that_did_not_show_proves_nothing_of_its_fix() -> None:
    told = said(side(BEFORE, growth=FLAT, remains=FLAT), side(AFTER, growth=FLAT, remains=FLAT))
    assert told.startswith(
        "before is BOUNDED: this work brings no defect out, so nothing is proved of a fix; try the work"
    )
    assert "--seconds 16" in told
    assert said(side(BEFORE, growth=FLAT, remains=LEAKS), side(AFTER, growth=FLAT, remains=FLAT)) == ""
    known = scenario("orphaned_task")
    broken = replace(side(BEFORE, growth=FLAT, remains=FLAT), side="broken")
    assert "diagnostics reproduce orphaned_task" in "\n".join(remarks(Outcome(known, 7, [broken], 0.0)))


@pytest.mark.parametrize(
    ("per_second", "expected"),
    [
        (1e6, r"up to 3.81 MiB for 4 clients .* still filling .* try --seconds 16"),
        (1e7, r"up to 3.81 MiB for 4 clients .* none of the figures above\.$"),
        (1e4, r"^$"),
    ],
)
def test_what_the_kernel_keeps_for_slow_clients_is_told(per_second: float, expected: str) -> None:
    filled = [queues(lambda t: min(4e6, per_second * t))] * 4
    assert re.search(expected, said(side(AFTER, growth=FLAT, remains=FLAT, rounds=filled)))


def test_what_could_not_be_explained_is_told_and_changes_nothing() -> None:
    assert "no balance of before and after" in said(side(AFTER, growth=FLAT, remains=LEAKS, unweighed="it is silent"))
    told = said(side(AFTER, growth=FLAT, remains=LEAKS, unexplained="the capture is still tracing after 90 s"))
    assert (
        told
        == "after: what holds the memory is not known, which changes nothing: the capture is still tracing after 90 s"
    )
