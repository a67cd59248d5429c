"""Rules: what is watched, when it counts, what is done then, and how often at most. A pure core: time is given, never asked.

    trigger    a value of the worker above or below a bound
    for        seconds that it must stay there without a break; a value that is not known breaks it
    action     a kind of capture with its options (none: only the line in the log)
    cooldown   seconds from one firing to the next; limit: firings within a day

The defaults take what is cheap while there is still room, because a process that the kernel kills takes its memory with it:
two censuses of objects, and what keeps alive what is new, when the limit is minutes away, and where every task waits once it is
nearly met, read without a fork, which would need memory itself.
"""

from __future__ import annotations

import tomllib
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ...errors import UsageError

__all__ = ["DEFAULTS", "TRIGGERS", "Engine", "Firing", "Rule", "parse"]

# What may be watched, and whether it fires above the bound or below it.
TRIGGERS: Final[dict[str, tuple[str, str]]] = {
    "cgroup_share": ("above", "working set of the cgroup, as a share of its limit, 0 to 1"),
    "rss_share": ("above", "RSS, as a share of the cgroup's limit or, without one, of the machine's memory, 0 to 1"),
    "seconds_to_limit": ("below", "seconds until the cgroup's working set meets its limit at the present slope"),
    "buffered_bytes": ("above", "bytes that all open streams hold in the application and in the server"),
}
DAY = 86400.0
_MAX_RULES = 50
# Bounds that can be crossed: a share of 85 was meant as a percentage, and would never be.
_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "cgroup_share": (0, 0.999),
    "rss_share": (0, 0.999),
    "seconds_to_limit": (1, 30 * DAY),
    "buffered_bytes": (0, 2**60),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; see the file's docstring. Seconds, and `bound` in the trigger's own unit."""

    name: str
    trigger: str
    bound: float
    hold: float = 5.0
    capture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cooldown: float = 600.0
    limit: int = 3

    def met(self, value: float | None) -> bool:
        if value is None:
            return False
        return value > self.bound if TRIGGERS[self.trigger][0] == "above" else value < self.bound

    @property
    def says(self) -> str:
        return f"{self.trigger} {TRIGGERS[self.trigger][0]} {self.bound:g} for {self.hold:g} s"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "says": self.says}


DEFAULTS: Final = (
    Rule("limit-in-sight", "seconds_to_limit", 600, 10, "objects", {"seconds": 10}, 1800, 3),
    Rule("limit-near", "cgroup_share", 0.85, 3, "tasks", {"fork": False}, 600, 3),
)


@dataclass(frozen=True, slots=True)
class Firing:
    """`time` in the clock that `look` was given, `value` the one that was over the bound."""

    rule: Rule
    time: float
    value: float

    @property
    def says(self) -> str:
        return f"{self.rule.says}: {self.value:.4g}"


@dataclass(slots=True)
class _State:
    since: float | None = None
    fired: deque[float] = field(default_factory=deque)


class Engine:
    """All rules over one worker. Times must not go back; their zero does not matter."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._states = {rule.name: _State() for rule in rules}

    def look(self, now: float, values: Mapping[str, float | None]) -> list[Firing]:
        """The rules that fire at `now` (seconds), given the values by the names in TRIGGERS; absent is not known."""
        firings = []
        for rule in self.rules:
            value = values.get(rule.trigger)
            if self._fires(rule, now, value):
                assert value is not None  # what is not known fires nothing
                firings.append(Firing(rule, now, value))
        return firings

    def _fires(self, rule: Rule, now: float, value: float | None) -> bool:
        state = self._states[rule.name]
        if not rule.met(value):
            state.since = None
            return False
        state.since = now if state.since is None else state.since
        while state.fired and now - state.fired[0] >= DAY:
            state.fired.popleft()
        cooling = bool(state.fired) and now - state.fired[-1] < rule.cooldown
        if now - state.since < rule.hold or cooling or len(state.fired) >= rule.limit:
            return False
        state.fired.append(now)
        return True


def parse(text: str, source: str = "the rules") -> tuple[Rule, ...]:
    """Rules from TOML, one `[[rule]]` each. Raises UsageError that names the rule, the key and the value."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of a number of 5,000 digits, and of tables a thousand deep
        raise UsageError(f"{source} is not TOML: {error}", remedy="see docs/rules.md for an example") from error
    entries = document.pop("rule", [])
    if document or not isinstance(entries, list):
        raise UsageError(
            f"{source} has {sorted(document) or entries!r}", remedy="write one [[rule]] table for each rule"
        )
    if len(entries) > _MAX_RULES:
        raise UsageError(f"{source} has {len(entries)} rules", remedy=f"write at most {_MAX_RULES}")
    rules = tuple(_rule(entry, number) for number, entry in enumerate(entries, 1))
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two rules are named {twice!r}", remedy="give each a name of its own")
    return rules


def _rule(entry: Any, number: int) -> Rule:
    if not isinstance(entry, dict):
        raise UsageError(f"rule {number} is {entry!r}", remedy="write one [[rule]] table for each rule")
    given = dict(entry)
    name, trigger = given.pop("name", None), given.pop("trigger", None)
    if not isinstance(name, str) or not name or len(name) > 60 or not name.isprintable():
        raise UsageError(f"rule {number} has the name {name!r}", remedy="give it a name of 1 to 60 characters")
    if not isinstance(trigger, str) or trigger not in TRIGGERS:
        raise UsageError(f"rule {name!r}: trigger is {trigger!r}", remedy=f"choose one of {', '.join(TRIGGERS)}")
    side = TRIGGERS[trigger][0]
    bound = _number(name, side, given.pop(side, None), *_BOUNDS[trigger])
    hold = _number(name, "for", given.pop("for", 5), 0, DAY)
    cooldown = _number(name, "cooldown", given.pop("cooldown", 600), 0, DAY)
    limit = _number(name, "limit", given.pop("limit", 3), 1, 1000)
    capture, options = given.pop("capture", None), given.pop("options", {})
    if capture is not None and not isinstance(capture, str):
        raise UsageError(f"rule {name!r}: capture is {capture!r}", remedy="write the name of a kind, or leave it out")
    if not isinstance(options, dict):
        raise UsageError(f"rule {name!r}: options is {options!r}", remedy="write a table, such as {seconds = 5}")
    if given:
        raise UsageError(
            f"rule {name!r} has no key {min(given)!r}",
            remedy=f"it has name, trigger, {side}, for, capture, options, cooldown, limit",
        )
    return Rule(name, trigger, bound, hold, capture, options, cooldown, int(limit))


def _number(name: str, key: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"rule {name!r}: {key} is {value!r}", remedy=f"write a number from {low:g} to {high:g}")
    return float(value)
