"""The keys of the rules' file: one table that the parser, the JSON schema and the errors are made from.

A key says what is wrong with a value (`wrong`: what to write instead; "" where nothing is), and its JSON schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from ..captures.kinds import KINDS
from .expression import LONGEST
from .triggers import DAY

__all__ = ["ACTIONS", "RULE", "Key", "Number", "Table", "Text", "Whole", "Words"]

_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """`required`: a rule or action without it is wrong. `secret`: a wrong value is not shown: it may be nearly right."""

    says: str
    required: bool = False
    secret: bool = False

    def wrong(self, value: Any) -> str:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Number(Key):
    low: float
    high: float

    def wrong(self, value: Any) -> str:
        fits = not isinstance(value, bool) and isinstance(value, int | float) and self.low <= value <= self.high
        return "" if fits else f"write a number from {self.low:g} to {self.high:g}"

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high, "description": self.says}


@dataclass(frozen=True, slots=True)
class Whole(Number):
    def wrong(self, value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high
        return "" if fits else f"write a whole number from {self.low:.0f} to {self.high:.0f}"

    def schema(self) -> dict[str, Any]:
        return {**Number.schema(self), "type": "integer"}


@dataclass(frozen=True, slots=True)
class Text(Key):
    """Printable text of 1 to `longest` characters; of `choices` where there are any; that `pattern` matches whole."""

    longest: int = 60
    choices: tuple[str, ...] = ()
    pattern: str = ""

    def wrong(self, value: Any) -> str:
        if self.choices:
            return (
                "" if isinstance(value, str) and value in self.choices else f"choose one of {', '.join(self.choices)}"
            )
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= self.longest:
            return f"write {self.says}, of 1 to {self.longest} characters"
        return "" if not self.pattern or re.fullmatch(self.pattern, value) else f"write {self.says}"

    def schema(self) -> dict[str, Any]:
        if self.choices:
            return {"enum": list(self.choices), "description": self.says}
        limits = {"type": "string", "minLength": 1, "maxLength": self.longest, "description": self.says}
        return {**limits, "pattern": f"^(?:{self.pattern})$"} if self.pattern else limits


@dataclass(frozen=True, slots=True)
class Words(Key):
    """A list of `least` to `most` texts, each as `each`."""

    each: Text
    least: int
    most: int

    def wrong(self, value: Any) -> str:
        fits = isinstance(value, list) and self.least <= len(value) <= self.most
        if not fits or any(self.each.wrong(word) for word in value):
            return f"write a list of {self.least} to {self.most} texts: {self.says}"
        return ""

    def schema(self) -> dict[str, Any]:
        return {
            "type": "array", "items": self.each.schema(), "minItems": self.least, "maxItems": self.most,
            "description": self.says,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table(Key):
    def wrong(self, value: Any) -> str:
        return "" if isinstance(value, dict) else f"write a table, such as {self.says}"

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "description": self.says}


_VARIABLE: Final = "[A-Za-z_][A-Za-z0-9_]*"
_OPTIONS: Final = "{seconds = 5}"

# Every key of a rule but its bound, whose limits are its trigger's.
RULE: Final[dict[str, Key]] = {
    "name": Text(60, says="a name", required=True),
    "trigger": Text(60, says="what is watched"),
    "when": Text(LONGEST, says="in the place of trigger, bound and for: a condition over recorded series"),
    "for": Number(0, DAY, says="seconds that it must hold without a break"),
    "capture": Text(60, says="the kind of a capture to take", choices=tuple(KINDS)),
    "options": Table(says=_OPTIONS),
    "cooldown": Number(0, DAY, says="seconds to the next firing at the earliest"),
    "limit": Number(1, 1000, says="firings of one worker within 24 hours"),
    "per_hour": Whole(1, 1000, says="firings of one worker within an hour"),
}

# do -> the keys of an action.
ACTIONS: Final[dict[str, dict[str, Key]]] = {
    "log": {"level": Text(choices=("warning", "error"), says="the line's level")},
    "capture": {
        "kind": Text(choices=tuple(KINDS), says="the kind of the capture", required=True),
        "options": Table(says=_OPTIONS),
    },
    "webhook": {
        "url": Text(2000, pattern=r"https?://[^\s/?#@\\]+(?:[/?][^\s#]*)?", says="an http or https address", secret=True),
        "url_env": Text(200, pattern=_VARIABLE, says="the environment variable that has the address"),
        "shape": Text(choices=("plain", "slack", "alertmanager", "alerts"), says="the body's shape"),
        "key_env": Text(200, pattern=_VARIABLE, says="the environment variable that has the signature's key"),
        "key_file": Text(1000, pattern="/.*", says="the file that has the signature's key, by its absolute path"),
        "timeout": Number(0.1, 60, says="seconds for each attempt"),
        "attempts": Whole(1, 5, says="the most attempts"),
    },
    "command": {
        "argv": Words(
            Text(1000, says="a word of the command"), 1, 50, says="a program by its absolute path, and its arguments",
            required=True, secret=True,
        ),
        "timeout": Number(0.1, 300, says="seconds until it is killed"),
        "memory": Whole(16 * _MIB, 64 * 1024 * _MIB, says="bytes of address space that it may have"),
        "env": Words(Text(200, pattern=_VARIABLE, says="a variable's name"), 0, 20, says="variables that it is given"),
    },
}  # fmt: skip
