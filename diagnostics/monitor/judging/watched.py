"""What rules watch, from a row of a recording, from an outlook, from a verdict; and rules applied to a whole recording."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...analysis.trend import WINDOWS, seconds_to_limit, trend
from ...analysis.verdict.verdict import Verdict
from ..recording import timeline
from ..recording.outlook import COLUMNS, Outlook, judge
from ..recording.ring import Recording
from ..rules.engine import Engine
from ..rules.rule import Rule
from ..rules.triggers import TRIGGERS

__all__ = ["dry_run", "machine_bytes", "values_of", "values_of_verdict", "wants_verdict"]

_FORECAST_SECONDS: Final = 60.0
# Growth is judged over no longer time than this; see WINDOWS.
_LONGEST_WINDOW: Final = 3600.0
_UNKNOWN: Final = "inconclusive"


def _wants(rules: Sequence[Rule], trigger: str) -> bool:
    return any(rule.trigger == trigger for rule in rules)


def wants_verdict(rules: Sequence[Rule]) -> bool:
    return any(rule.trigger and TRIGGERS[rule.trigger].needs == "verdict" for rule in rules)


def values_of(row: Mapping[str, float | None], forecast: float | None, machine: int | None) -> dict[str, float | None]:
    """What the rules watch, from one row of a recording by its fields' names; None is not known.

    machine   bytes of the machine's memory
    """
    limit = row.get("cgroup_limit_bytes")
    layers = [row.get("buffered_app_bytes"), row.get("buffered_transport_bytes")]
    lags = [row.get("loop_lag_seconds"), row.get("loop_pending_seconds")]
    return {
        **row,  # for conditions, which name series
        "cgroup_share": _share(row.get("cgroup_working_bytes"), limit),
        "rss_share": _share(row.get("rss_bytes"), limit or machine),
        "seconds_to_limit": forecast,
        "buffered_bytes": _known(sum, layers),
        "loop_lag": _known(max, lags),
        "unclosed_upstreams": row.get("abandoned_streams"),
    }


def values_of_verdict(
    verdict: Verdict, outlook: Outlook | None, tasks: Mapping[str, Any] | None
) -> dict[str, float | None]:
    """What the rules watch of a verdict. An inconclusive one knows nothing: then all is unknown but what a capture has counted.

    tasks   the result of a `tasks` capture of the last minutes
    """
    leaked = (tasks or {}).get("leaked")
    if verdict.word == _UNKNOWN:
        return {"leaked_tasks": leaked}
    per_stream = outlook.per_stream if outlook is not None else None
    return {
        "growth_per_stream": per_stream[0] if per_stream is not None else None,
        "orphan_tasks": _amount(verdict, "orphan_tasks"),
        "leaked_tasks": leaked,
        "unclosed_upstreams": _amount(verdict, "unclosed_upstreams"),
    }


def _amount(verdict: Verdict, word: str) -> float:
    """The count that a finding of this cause stands on, its first evidence; 0 where the verdict has none."""
    found = next((each for each in (verdict.finding, *verdict.also) if each.word == word), None)
    return float(found.evidence[0].value) if found is not None else 0.0


def dry_run(recording: Recording, rules: tuple[Rule, ...], machine: int | None) -> list[dict[str, Any]]:
    """When each rule would have fired over all that is recorded, oldest first; wall-clock times.

    Forecasts are made once a minute of the recorded time, from the rows until then. Verdicts are not recorded: growth per
    stream is judged by its interval alone, and what only a verdict tells is not known.
    """
    engine = Engine(rules)
    names = [name for name, _ in timeline.columns(recording)]
    rows = [dict(zip(names, row, strict=True)) for row in timeline.rows(recording)]
    times = [row["time"] or 0.0 for row in rows]
    forecast, due = None, -math.inf
    judged: dict[str, float | None] = {}
    firings: list[dict[str, Any]] = []
    for at, (now, row) in enumerate(zip(times, rows, strict=True)):
        if now >= due:
            due = now + _FORECAST_SECONDS
            forecast = _forecast(rows, times, at) if _wants(rules, "seconds_to_limit") else None
            if _wants(rules, "growth_per_stream"):
                judged = {"growth_per_stream": _per_stream(recording, rows, times, at)}
        firings += (
            {
                "rule": firing.rule.name,
                "time": now,
                "says": firing.says,
                "capture": firing.rule.capture.kind if firing.rule.capture else None,
                "actions": [action.do for action in firing.rule.actions],
            }
            for firing in engine.look(now, {**values_of(row, forecast, machine), **judged})
        )
    return firings


def _per_stream(
    recording: Recording, rows: Sequence[Mapping[str, float | None]], times: Sequence[float], at: int
) -> float | None:
    """Growth per finished stream, the low end, as the recorder would have said when row `at` was the last."""
    first = bisect_left(times, times[at] - _LONGEST_WINDOW)
    part = rows[first : at + 1]
    columns = {name: [math.nan if (value := row.get(name)) is None else value for row in part] for name in COLUMNS}
    per_stream = judge(columns, recording.header.process.get("started")).per_stream
    return per_stream[0] if per_stream is not None else None


def _forecast(rows: Sequence[Mapping[str, float | None]], times: Sequence[float], at: int) -> float | None:
    """Seconds to the limit as the recorder would have said when row `at` was the last."""
    used, limit = rows[at].get("cgroup_working_bytes"), rows[at].get("cgroup_limit_bytes")
    if used is None or limit is None:
        return None
    for window in WINDOWS:
        first = bisect_left(times, times[at] - window)
        points = [
            (times[place], held)
            for place in range(first, at + 1)
            if (held := rows[place].get("cgroup_working_bytes")) is not None
        ]
        seconds = seconds_to_limit(trend(points), used, limit)
        if seconds is not None:
            return seconds
    return None


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _known(of: Any, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return of(known) if known else None


def machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
