"""Of child processes that grow the one is named, by what it runs and its number, that most of the growth is in."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.analysis.verdict.child import Child
from diagnostics.analysis.verdict.readings import MIB, Readings
from diagnostics.analysis.verdict.verdict import verdict

SECONDS = 120


def line(start: float, per_second: float, since: int = 0) -> list[tuple[float, float]]:
    return [(float(second), start + per_second * (second - since)) for second in range(since, SECONDS)]


def child(pid: int, per_second: float, command: str = "python3.11 job.py", since: int = 0) -> Child:
    points = line(20 * MIB, per_second, since)
    return Child(pid, command, points, points)


def told(*children: Child) -> Any:
    total = [
        (float(at), sum(value for each in children for time, value in each.rss if time == at)) for at in range(SECONDS)
    ]
    quiet = {"rss_bytes": line(100 * MIB, 0), "in_use_bytes": line(50 * MIB, 0), "children": line(len(children), 0)}
    series = {**quiet, "children_rss_bytes": total, "children_pss_bytes": total}
    return verdict(
        Readings(state="answering", balance={"rss_bytes": 100 * MIB, "parts": {}}, series=series, offspring=children)
    )


def test_the_one_that_grows_is_named_with_its_number() -> None:
    found = told(child(7, 0), child(8, 400_000, "python3.11 (multiprocessing.spawn.spawn_main)"), child(9, 1_000))
    assert (found.word, found.finding.confidence) == ("child_growth", "high")
    assert found.finding.culprit == "python3.11 (multiprocessing.spawn.spawn_main), pid 8"
    assert found.finding.culprit in found.finding.says
    assert found.to_json()["next"] == "DIAGNOSTICS_AGENT=always diagnostics run -- CMD"


def test_several_that_run_the_same_are_named_together() -> None:
    found = told(*(child(pid, 100_000) for pid in range(11, 16)), child(30, 0, "redis-server"))
    assert found.finding.culprit == "5 processes of python3.11 job.py (pid 11, 12, 13, ...)"


def test_a_child_that_was_started_meanwhile_counts_with_all_that_it_has() -> None:
    quiet = [child(pid, 60_000, f"worker{pid}") for pid in (1, 2, 3)]
    late = Child(9, "python3.11 late.py", line(20 * MIB, 300_000, 100), line(20 * MIB, 300_000, 100))
    assert late.gained("PSS", 0.0) > 20 * MIB
    assert quiet[0].gained("PSS", 0.0) < 8 * MIB


@pytest.mark.parametrize("each", [100_000, 250_000])
def test_where_none_has_half_of_it_none_is_named(each: int) -> None:
    found = told(*(child(pid, each, f"program{pid}") for pid in range(4)))
    assert (found.word, found.finding.culprit) == ("child_growth", None)
