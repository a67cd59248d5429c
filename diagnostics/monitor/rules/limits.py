"""When each rule fired for each worker, and whether it may again. Pure: wall-clock seconds are given.

A firing counts from the moment of firing: whatever becomes of its actions, and whoever lives on afterwards. So neither an
action that fails or runs out of time, nor a restart of the monitor, nor a worker's successor under the same number begins
anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from .rule import Rule
from .triggers import DAY

__all__ = ["Limits"]

_HOUR: Final = 3600.0
SCHEMA: Final = "highwater.rule-limits/1"


class Limits:
    """The firings of the last day, by rule and worker."""

    def __init__(self, fired: Mapping[tuple[str, str], list[float]] | None = None) -> None:
        self._fired = {key: deque(times) for key, times in (fired or {}).items()}

    def holds_back(self, rule: Rule, worker: str, now: float) -> bool:
        """Whether a limit of this rule forbids it to fire for this worker now."""
        times = self._fired.get((rule.name, worker))
        if times is None:
            return False
        while times and now - times[0] >= DAY:
            times.popleft()
        if not times:
            del self._fired[rule.name, worker]
            return False
        hour = sum(now - at < _HOUR for at in times)
        return (
            now - times[-1] < rule.cooldown
            or len(times) >= rule.limit
            or (rule.per_hour is not None and hour >= rule.per_hour)
        )

    def fired(self, rule: Rule, worker: str, now: float) -> None:
        self._fired.setdefault((rule.name, worker), deque()).append(now)

    def to_json(self) -> dict[str, Any]:
        rows = [[rule, worker, list(times)] for (rule, worker), times in self._fired.items() if times]
        return {"schema": SCHEMA, "fired": rows}

    @classmethod
    def of_json(cls, told: Any, now: float) -> Limits:
        """What `to_json` gave, without what is older than a day. Raises ValueError for anything else.

        A time after `now` (the clock was set back since) counts as now: it must not hold a rule back for longer than its
        limits.
        """
        if not isinstance(told, dict) or told.get("schema") != SCHEMA or not isinstance(told.get("fired"), list):
            raise ValueError(f"it is no {SCHEMA}")
        fired: dict[tuple[str, str], list[float]] = {}
        for row in told["fired"]:
            shaped = isinstance(row, list) and [type(each) for each in row] == [str, str, list]
            if not shaped or not all(isinstance(at, int | float) and abs(at) < 1e12 for at in row[2]):
                raise ValueError(f"{row!r:.100} is no row of it")
            rule, worker, times = row
            fired[rule, worker] = sorted(min(float(at), now) for at in times if now - at < DAY)
        return cls(fired)
