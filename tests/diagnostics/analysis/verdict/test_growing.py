"""The line that a verdict on growth names from the live heap: only one that is surely most of it, and only where it goes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from diagnostics.analysis.lines.growth import History
from diagnostics.analysis.lines.lives import life_of
from diagnostics.analysis.lives import Life
from diagnostics.analysis.verdict.readings import MIB, Readings
from diagnostics.analysis.verdict.verdict import Verdict, verdict

from ..lines.planted_heap import STARTED, Heap

SECONDS, PACE = 150, 400_000
Fill = Callable[[Heap], None]


def line(start: float, per_second: float = 0.0, seconds: int = SECONDS) -> list[tuple[float, float]]:
    return [(STARTED + second, start + per_second * second) for second in range(seconds)]


def told(
    fill: Fill | None,
    *,
    small: float = 0.0,
    blocks: float = 40.0,
    seconds: int = SECONDS,
    seed: int = 1,
    **more: Any,
) -> Verdict:
    """A service whose in-use memory grows by 400 kB a second; its live heap holds what `fill` puts there.

    more   of Readings; of `series`, what is added, or stands instead of what is here
    """
    series: dict[str, list[tuple[float, float]]] = {
        "rss_bytes": line(100 * MIB, PACE, seconds),
        "in_use_bytes": line(60 * MIB, PACE, seconds),
        "python_live_bytes": line(30 * MIB, small * PACE, seconds),
        "malloc_live_bytes": line(30 * MIB, (1 - small) * PACE, seconds),
        "python_large_blocks": line(1200, blocks, seconds),
        "open_streams": line(4, 0.0, seconds),
        "streams_finished_total": line(0, 20, seconds),
        "tasks": line(10, 0.0, seconds),
    }
    heap = Heap(random.Random(seed))
    lines: History | None = None
    if fill is not None:
        fill(heap)
        lines = heap.history(range(0, seconds, 5))
    held = {"rss_bytes": 160 * MIB, "parts": {}}
    series |= more.pop("series", {})
    known = {"state": "answering", "balance": held, "series": series, "lines": lines, **more}
    return verdict(Readings(**known))


def leak(share: float, seconds: int = SECONDS) -> Fill:
    def fill(heap: Heap) -> None:
        heap.fill("loads", 30 * MIB, 20_000, 0, 2)
        heap.fill("leaks", share * PACE * seconds, 20_000, 0, seconds)
        for other in range(8):
            heap.fill(f"other {other}", (1 - share) / 8 * PACE * seconds, 20_000, 0, seconds)

    return fill


def test_the_line_is_named_with_its_pace_and_what_each_stream_leaves() -> None:
    found = told(leak(1.0)).finding
    assert (found.word, found.confidence, found.culprit) == ("retained_objects", "medium", "leaks (app.py:11)")
    assert found.line is not None
    assert found.line["grows"]
    assert (found.line["function"], found.line["file"], found.line["line"]) == ("leaks", "/srv/app.py", 11)
    assert found.line["per_hour"]["low"] < 3600 * PACE < found.line["per_hour"]["high"]
    assert found.line["per_stream"]["low"] < PACE / 20 < found.line["per_stream"]["high"]
    assert "leaks (app.py:11) holds" in found.says
    assert "for each finished stream" in found.says
    assert any("of it allocated by leaks (app.py:11) (95 % sure" in each.text for each in found.evidence)


@pytest.mark.parametrize("seed", range(25))
def test_a_line_of_less_than_half_is_never_named(seed: int) -> None:
    found = told(leak(0.45), seed=seed).finding
    assert (found.line, found.culprit) == (None, None)
    assert any("gained in the live heap, all lines" in each.text for each in found.evidence)


@pytest.mark.parametrize("seed", range(10))
def test_a_leak_outside_of_python_accuses_no_line(seed: int) -> None:
    def fill(heap: Heap) -> None:
        heap.fill("loads", 80 * MIB, 20_000, 0, 2)
        heap.fill("serves", 300 * MIB, 20_000, 0, SECONDS, lives=20)
        heap.fill("full cache", 60 * MIB, 20_000, -60, SECONDS, lives=60)

    found = told(fill, blocks=0.0, seed=seed).finding
    assert found.word == "native_growth"
    assert (found.line, found.culprit) == (None, None)


def test_a_process_that_is_young_has_its_line_told_and_nobody_accused() -> None:
    found = told(leak(1.0, 60), seconds=60).finding
    assert (found.confidence, found.culprit) == ("low", None)
    assert found.line is not None
    assert "leaks (app.py:11) holds" in found.says


def test_a_culprit_that_a_capture_has_named_stays_and_the_line_is_added() -> None:
    census = {
        "seconds": 10.0, "bytes_delta": 9 * PACE, "in_use_delta": 10 * PACE, "hidden": [],
        "top": [{"type": "bytearray", "bytes_delta": 9 * PACE}],
        "paths": {"bytearray": [{"path": "module app -> global 'kept' -> bytearray", "samples": 12, "root": "module"}]},
    }  # fmt: skip
    found = told(leak(1.0), captures={"objects": census}).finding
    assert (found.culprit, found.confidence) == ("bytearray", "high")
    assert found.line is not None
    assert found.line["name"] == "leaks (app.py:11)"


@pytest.mark.parametrize("fill", [None, lambda heap: None])
def test_without_a_live_heap_the_verdict_is_as_before(fill: Fill | None) -> None:
    found = told(fill).finding
    assert (found.word, found.confidence, found.line, found.culprit) == ("retained_objects", "medium", None, None)
    assert told(None).to_json()["line"] is None


def test_what_grows_and_stops_is_not_named_although_memory_grows() -> None:
    """A step of one line's, beside a leak that the live heap does not see: nothing of it goes on."""

    def fill(heap: Heap) -> None:
        heap.fill("step", 0.9 * PACE * SECONDS, 20_000, 60, 64)

    for seed in range(10):
        assert told(fill, seed=seed).finding.line is None


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_leak_that_is_slow_and_steady_is_found_in_a_longer_window(noise: float) -> None:
    """20 KiB a second: surely growing within two minutes, by 2 MiB, which would not matter; of an hour it is 70 MiB."""
    rng = random.Random(1)
    rough = [rng.gauss(0, noise * MIB) for _ in range(900)]
    grown = [(STARTED + second, 30 * MIB + 20_480 * second + rough[second]) for second in range(900)]
    series = {"rss_bytes": grown, "in_use_bytes": grown, "python_live_bytes": grown, "open_streams": line(4, 0.0, 900)}
    held = {"rss_bytes": 60 * MIB, "parts": {}}
    found = verdict(Readings(state="answering", balance=held, series=series, since=STARTED + 225, age=900.0))
    assert (found.word, found.alarm) == ("retained_objects", True)


def lives(share: float, count: int = 6, seed: int = 1) -> list[Life]:
    """Minutes of a worker that is recycled, each with a table of its own; a quarter of each is warm-up."""
    made = []
    for number in range(count):
        heap = Heap(random.Random(f"{seed} {number}"))
        leak(share, 60)(heap)
        lines = life_of(heap.history(range(0, 61, 5)), STARTED + 15)
        at = STARTED + number * 65
        grown = [(at + second, 60 * MIB + PACE * second) for second in range(15, 60)]
        flat = [(at + second, 4.0) for second in range(15, 60)]
        series = {"in_use_bytes": grown, "python_live_bytes": grown, "open_streams": flat, "tasks": flat}
        made.append(Life(60.0, series, 1200.0, lines))
    return made


def test_the_line_of_a_recycled_worker_is_named_over_its_lives() -> None:
    found = told(None, seconds=5, age=5.0, lives=lives(1.0)).finding
    assert (found.word, found.culprit) == ("retained_objects", "leaks (app.py:11)")
    assert found.line is not None
    assert (found.line["lives"], found.line["grows"]) == (6, True)
    assert found.line["per_hour"]["low"] < 3600 * PACE < found.line["per_hour"]["high"]
    assert found.line["per_stream"]["low"] < PACE / 20 < found.line["per_stream"]["high"]
    assert "s of 6 processes, one after the other" in found.says
    # Of its own looks, which tell of its first seconds, nothing is said.
    assert told(leak(1.0, 5), seconds=5, age=5.0, lives=lives(1.0)).finding.culprit == "leaks (app.py:11)"


@pytest.mark.parametrize("seed", range(10))
def test_a_line_of_less_than_half_is_not_named_over_lives_either(seed: int) -> None:
    found = told(None, seconds=5, age=5.0, lives=lives(0.4, seed=seed)).finding
    assert (found.line, found.culprit) == (None, None)
    assert any("of 6 processes" in each.text for each in found.evidence)


@pytest.mark.parametrize("state", ["silent", "outside"])
@pytest.mark.parametrize("is_noisy", [False, True])
def test_the_line_is_told_while_the_agent_does_not_answer(state: str, is_noisy: bool) -> None:
    """Its table is read without it. What grows is then known by the kernel's figures alone: nobody is accused."""
    series = {}
    if is_noisy:  # RSS has pages of files, too, that come and go: only of private memory it is sure that it grows
        series = {
            "rss_bytes": [(at, value + 200 * MIB * (at % 60 > 30)) for at, value in line(100 * MIB, PACE)],
            "private_bytes": line(80 * MIB, PACE),
        }
    found = told(leak(1.0), state=state, series=series).finding
    assert (found.word, found.culprit) == ("inconclusive", None)
    assert "leaks (app.py:11) holds" in found.says
    assert told(leak(0.45), state=state, series=series).finding.line is None


def test_a_tracers_window_is_no_growth_of_any_line() -> None:
    assert told(leak(1.0), state="silent", window="memray").finding.line is None
