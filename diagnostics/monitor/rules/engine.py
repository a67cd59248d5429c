"""When rules fire: their values held over time, against their bounds and limits. Pure: time is given, never asked.

trigger or expression   a value of the worker above or below a bound
for                     seconds that it must stay there without a break; a value that is not known breaks it
cooldown, limit         seconds from one firing to the next; the most within a day, and within an hour
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .limits import Limits
from .rule import Firing, Rule

__all__ = ["Engine"]


@dataclass(slots=True)
class _Stretch:
    """The time for which a rule's condition has been met without a break; None: it is not met now."""

    since: float | None = None
    fired: bool = False  # within this stretch
    counted: bool = False  # as suppressed


class Engine:
    """All rules over one worker. Times must not go back; their zero does not matter.

    limits   shared by all workers, whose number is `worker`; default: an own one
    """

    def __init__(self, rules: tuple[Rule, ...], limits: Limits | None = None, worker: str = "") -> None:
        self.rules = rules
        self._limits = limits if limits is not None else Limits()
        self._worker = worker
        self._stretches = {rule.name: _Stretch() for rule in rules}
        # Rules that a limit has kept from firing since `suppressed` was read, each stretch of time once.
        self._suppressed: list[Rule] = []

    def look(self, now: float, values: Mapping[str, float | None], wall: float | None = None) -> list[Firing]:
        """The rules that fire at `now` (seconds), given the values by the names of triggers and series; absent is not known.

        wall   the same moment as seconds since the epoch, by which limits count; default: `now`
        """
        firings = []
        for rule in self.rules:
            value = rule.value(values)
            if self._fires(rule, now, value, now if wall is None else wall):
                assert value is not None  # what is not known fires nothing
                firings.append(Firing(rule, now, value))
        return firings

    def suppressed(self) -> list[Rule]:
        """The rules that a limit has kept from firing since this was last asked."""
        suppressed, self._suppressed = self._suppressed, []
        return suppressed

    def _fires(self, rule: Rule, now: float, value: float | None, wall: float) -> bool:
        if not rule.met(value):
            self._stretches[rule.name] = _Stretch()
            return False
        stretch = self._stretches[rule.name]
        stretch.since = now if stretch.since is None else stretch.since
        if now - stretch.since < rule.holds_for:
            return False
        if self._limits.holds_back(rule, self._worker, wall):
            # One that fired and still holds is what the cooldown is for: nothing new was kept back.
            if not stretch.fired and not stretch.counted:
                stretch.counted = True
                self._suppressed.append(rule)
            return False
        stretch.fired, stretch.counted = True, False
        self._limits.fired(rule, self._worker, wall)
        return True
