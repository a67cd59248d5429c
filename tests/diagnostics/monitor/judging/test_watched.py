"""What rules watch: values from a row and from a verdict, and that what is unknown stays unknown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from diagnostics.analysis.verdict.finding import Finding
from diagnostics.analysis.verdict.readings import Evidence
from diagnostics.analysis.verdict.verdict import Verdict
from diagnostics.monitor.judging.watched import values_of, values_of_verdict, wants_verdict
from diagnostics.monitor.rules.engine import Engine
from diagnostics.monitor.rules.rule import Rule

GROWS: Any = SimpleNamespace(per_stream=(70_000.0, 90_000.0, 110_000.0))


def finding(word: str, amount: float = 0.0) -> Finding:
    return Finding(word, "medium", "", (Evidence("counted", amount, "count"),))


def test_growth_per_stream_is_the_low_end_and_fires_on_no_unknown_verdict() -> None:
    rule = Rule("left", "growth_per_stream", 65536, hold=0)
    grows = values_of_verdict(Verdict(finding("memory_growth")), GROWS, None)
    assert grows["growth_per_stream"] == 70_000
    assert Engine((rule,)).look(0, grows)
    unknown = values_of_verdict(Verdict(finding("inconclusive")), GROWS, None)
    assert Engine((rule,)).look(0, unknown) == []
    assert unknown.get("growth_per_stream") is None
    nothing: Any = SimpleNamespace(per_stream=None)
    assert values_of_verdict(Verdict(finding("load_only")), nothing, None)["growth_per_stream"] is None


def test_orphans_and_upstreams_are_those_of_any_finding() -> None:
    verdict = Verdict(finding("retained_objects"), (finding("orphan_tasks", 41), finding("unclosed_upstreams", 12)))
    told = values_of_verdict(verdict, None, {"leaked": 7})
    assert (told["orphan_tasks"], told["unclosed_upstreams"], told["leaked_tasks"]) == (41, 12, 7)
    calm = values_of_verdict(Verdict(finding("load_only")), None, None)
    assert (calm["orphan_tasks"], calm["leaked_tasks"]) == (0, None)
    unknown = values_of_verdict(Verdict(finding("inconclusive")), None, {"leaked": 7})
    assert unknown == {"leaked_tasks": 7}  # counted, whatever the verdict


@pytest.mark.parametrize(
    ("row", "lag"),
    [
        ({"loop_lag_seconds": 0.1, "loop_pending_seconds": 2.0}, 2.0),
        ({"loop_lag_seconds": 0.3, "loop_pending_seconds": 0.0}, 0.3),
        ({"loop_lag_seconds": None, "loop_pending_seconds": None}, None),
        ({}, None),
    ],
)
def test_the_loops_lag_is_the_worse_of_the_last_and_the_present(
    row: dict[str, float | None], lag: float | None
) -> None:
    assert values_of(row, None, None)["loop_lag"] == lag


def test_a_verdict_is_made_only_where_a_rule_asks_for_it() -> None:
    assert not wants_verdict((Rule("lag", "loop_lag", 1),))
    assert wants_verdict((Rule("lag", "loop_lag", 1), Rule("left", "growth_per_stream", 1)))
