"""A rule, its actions, and a firing of it: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from .expression import Condition
from .triggers import TRIGGERS

__all__ = ["DEFAULTS", "Action", "Capture", "Command", "Firing", "Log", "Rule", "Webhook"]


@dataclass(frozen=True, slots=True)
class Log:
    """The firing as one line of JSON in the monitor's log, at this level."""

    level: str = "warning"
    do: str = "log"

    def to_json(self) -> dict[str, Any]:
        return {"do": self.do, "level": self.level}


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture of the worker, of this kind."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    do: str = "capture"

    def to_json(self) -> dict[str, Any]:
        return {"do": self.do, "kind": self.kind, "options": dict(self.options)}


@dataclass(frozen=True, slots=True)
class Webhook:
    """A POST of the firing as JSON.

    url, url_env       the target, or the environment variable that has it: one of the two
    key_env, key_file  where the key of the signature is; without both the POST is not signed
    timeout            seconds for each attempt; attempts: the most
    """

    url: str = ""
    url_env: str = ""
    shape: str = "plain"
    key_env: str = ""
    key_file: str = ""
    timeout: float = 5.0
    attempts: int = 3
    do: str = "webhook"

    def to_json(self) -> dict[str, Any]:
        """Without the path and query of the target, which for many services are its password."""
        parts = urlsplit(self.url)
        target = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if self.url else f"${self.url_env}"
        return {"do": self.do, "target": target, "shape": self.shape, "signed": bool(self.key_env or self.key_file)}


@dataclass(frozen=True, slots=True)
class Command:
    """A program, started without a shell, with the firing as JSON on its standard input.

    timeout    seconds until it is killed, with all that it started
    memory     bytes of address space that it may have
    env        variables of the monitor's environment that it is given, beside PATH, HOME, LANG and TZ
    """

    argv: tuple[str, ...]
    timeout: float = 10.0
    memory: int = 512 * 1024**2
    env: tuple[str, ...] = ()
    do: str = "command"

    def to_json(self) -> dict[str, Any]:
        """Without the arguments, which may be secret."""
        return {"do": self.do, "program": self.argv[0], "timeout": self.timeout}


Action = Log | Capture | Webhook | Command


@dataclass(frozen=True, slots=True)
class Rule:
    """Seconds, and `bound` in the trigger's own unit.

    condition  in the place of trigger, bound and hold: an expression
    cooldown   seconds from one firing to the next; limit, per_hour: the most of one worker in a day, in an hour
    """

    name: str
    trigger: str = ""
    bound: float = 0.0
    hold: float = 5.0
    actions: tuple[Action, ...] = ()
    cooldown: float = 600.0
    limit: int = 3
    per_hour: int | None = None
    condition: Condition | None = None

    def value(self, known: Mapping[str, float | None]) -> float | None:
        """What this rule watches, from the values by the names of triggers and series; None: not known."""
        return known.get(self.trigger) if self.condition is None else self.condition.value(known)

    def met(self, value: float | None) -> bool:
        if value is None:
            return False
        if self.condition is not None:
            return self.condition.met(value)
        return value > self.bound if TRIGGERS[self.trigger].side == "above" else value < self.bound

    @property
    def holds_for(self) -> float:
        """Seconds that the value must stay beyond its bound."""
        return self.hold if self.condition is None else self.condition.hold

    @property
    def capture(self) -> Capture | None:
        return next((action for action in self.actions if isinstance(action, Capture)), None)

    @property
    def says(self) -> str:
        if self.condition is not None:
            return str(self.condition)
        return f"{self.trigger} {TRIGGERS[self.trigger].side} {self.bound:g} for {self.hold:g} s"

    def to_json(self) -> dict[str, Any]:
        """For everybody who may read: no key, no target's path, no argument of a command."""
        return {
            "name": self.name,
            "says": self.says,
            "trigger": self.trigger or None,
            "bound": self.bound if self.condition is None else self.condition.bound,
            "hold": self.holds_for,
            "capture": self.capture.kind if self.capture else None,
            "actions": [action.to_json() for action in self.actions],
            "cooldown": self.cooldown,
            "limit": self.limit,
            "per_hour": self.per_hour,
        }


DEFAULTS: Final = (
    # While there is still room: a process that the kernel kills takes its memory with it. Two censuses of objects, and what
    # keeps alive what is new, when the limit is minutes away; where every task waits, read without a fork, which would need
    # memory itself, once it is nearly met.
    Rule("limit-in-sight", "seconds_to_limit", 600, 10, (Capture("objects", {"seconds": 10}),), 1800, 3),
    Rule("limit-near", "cgroup_share", 0.85, 3, (Capture("tasks", {"fork": False}),), 600, 3),
)


@dataclass(frozen=True, slots=True)
class Firing:
    """`time` in the clock that the engine was given, `value` the one that was over the bound."""

    rule: Rule
    time: float
    value: float

    @property
    def says(self) -> str:
        return f"{self.rule.says}: {self.value:.4g}"
