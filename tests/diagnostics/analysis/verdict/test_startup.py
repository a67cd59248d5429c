"""A process that fills what it will keep looks like a leak until it stops: nobody is accused of it in its first two minutes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from diagnostics.analysis.trend import warm_up_ends
from diagnostics.analysis.verdict.finding import Finding
from diagnostics.analysis.verdict.readings import MIB, Readings
from diagnostics.analysis.verdict.startup import with_reserve
from diagnostics.analysis.verdict.verdict import verdict

Held = Callable[[float], float]

FILLS: dict[str, Held] = {
    "a cache that fills at the pace of the requests": lambda second: 24 * MIB * min(1.0, second / 60),
    "a table for each of thirty tenants": lambda second: 2 * MIB * min(30, second // 2),
    "a cache that is hit more and more": lambda second: 40 * MIB * (1 - math.exp(-second / 25)),
}


def at(seconds: int, held: Held, **more: Any) -> Readings:
    """A service that started at 0, seen `seconds` later: `held` of what it has in use is in small objects of Python's."""
    times = [float(second) for second in range(seconds)]
    lines: dict[str, Held] = {
        "rss_bytes": lambda second: 60 * MIB + held(second),
        "in_use_bytes": lambda second: 30 * MIB + held(second),
        "python_live_bytes": lambda second: 20 * MIB + held(second),
        "python_large_blocks": lambda _: 1200.0,
        "private_bytes": lambda second: 40 * MIB + held(second),
        "children_rss_bytes": lambda _: 0.0,
        "tasks": lambda _: 10.0,
        "open_streams": lambda _: 4.0,
    }
    known = {"since": warm_up_ends(0.0, seconds), "age": float(seconds), **more}
    return Readings(
        state="answering",
        balance={"rss_bytes": int(60 * MIB + held(seconds)), "parts": {}},
        open_streams=4,
        series={name: [(time, line(time)) for time in times] for name, line in lines.items()},
        **known,
    )


@pytest.mark.parametrize("name", FILLS)
def test_nobody_is_accused_of_what_fills_and_then_stops(name: str) -> None:
    for seconds in range(30, 400, 3):
        told = verdict(at(seconds, FILLS[name]))
        assert (told.alarm, told.finding.confidence) in (
            (False, "low"),
            (False, "medium"),
            (False, "high"),
            (True, "low"),
        ), f"after {seconds} s: {told.finding.says}"
        if told.alarm:
            assert "a cache that fills" in told.finding.says


def test_a_leak_is_told_from_the_start_and_accused_after_two_minutes() -> None:
    def leaks(second: float) -> float:
        return 300_000 * second

    early = verdict(at(60, leaks))
    assert (early.word, early.finding.confidence) == ("retained_objects", "low")
    late = verdict(at(120, leaks))
    assert (late.word, late.finding.confidence) == ("retained_objects", "medium")
    # It had run for a day before anybody looked: what it fills at its start was full.
    old = verdict(at(60, leaks, age=86_400.0, since=0.0))
    assert (old.word, old.finding.confidence) == ("retained_objects", "medium")


def test_what_no_container_holds_is_no_cache() -> None:
    young = at(60, lambda second: 300_000 * second)
    for unheld, confidence in ((True, "medium"), (False, "low")):
        found = Finding("retained_objects", "medium", "Objects grow.", (), unheld=unheld)
        assert with_reserve(young, found).confidence == confidence
