"""A condition over recorded series, as text: `rss_bytes / open_streams > 4 MiB for 30 s`. Pure; nothing is evaluated as code.

    condition  = value , compare , bound , "for" , duration ;
    value      = series , [ ( "/" | "-" ) , series ] ;
    series     = a field of the flight recorder, by its name ;
    compare    = ">" | ">=" | "<" | "<=" ;
    bound      = [ "-" ] , number , [ unit ] ;
    unit       = "KiB" | "MiB" | "GiB" | "%" | "ms" ;
    duration   = number , ( "s" | "min" | "h" ) ;
    number     = digits , [ "." , digits ] , [ "e" , [ "+" | "-" ] , digits ] ;

Blanks may stand between all of these. A unit is a factor: MiB is 1048576, % is 0.01, ms is 0.001. A series that is not known,
and a quotient by 0, are not known: such a value meets no bound.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ..recording.vitals import FIELDS

__all__ = ["LONGEST", "SERIES", "Condition", "ExpressionError", "parse_condition"]

# Everything that is recorded of a worker, but for the time itself.
SERIES: Final = tuple(field.name for field in FIELDS if field.name != "time")
LONGEST: Final = 200
_LONGEST_HOLD: Final = 86400.0
_UNITS: Final = {"KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3, "%": 0.01, "ms": 0.001}
_DURATIONS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
_COMPARES: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_TOKEN: Final = re.compile(
    r"[ \t]*(?:(?P<number>[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>>=|<=|[><%/-]))"
)


class ExpressionError(ValueError):
    """`place`: the number of characters before the fault; `allowed`: what may stand there."""

    def __init__(self, text: str, place: int, allowed: str) -> None:
        found = repr(text[place:].strip()[:30]) if text[place:].strip() else "the end"
        super().__init__(f"at character {place + 1}, {found}: expected {allowed}")
        self.place = place
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Condition:
    """`first`, or `first` and `second` joined by `join` ("/" or "-"), compared with `bound`, for `hold` seconds."""

    first: str
    join: str
    second: str
    compare: str
    bound: float
    hold: float

    def value(self, known: Mapping[str, float | None]) -> float | None:
        """The compared value, from the series by their names; None: not known."""
        first = known.get(self.first)
        if not self.join or first is None:
            return _finite(first)
        second = known.get(self.second)
        if second is None or (self.join == "/" and second == 0):
            return None
        return _finite(first / second if self.join == "/" else first - second)

    def met(self, value: float | None) -> bool:
        return value is not None and _COMPARES[self.compare](value, self.bound)

    def __str__(self) -> str:
        value = f"{self.first} {self.join} {self.second}" if self.join else self.first
        return f"{value} {self.compare} {_plain(self.bound)} for {_plain(self.hold)} s"


def parse_condition(text: str) -> Condition:
    """Raises ExpressionError with the place of the first fault, and what may stand there."""
    if len(text) > LONGEST:
        raise ExpressionError(text, LONGEST, f"at most {LONGEST} characters")
    tokens = _Tokens(text)
    first, join, second = tokens.series(), tokens.one_of("/", "-"), ""
    if join:
        second = tokens.series()
    compare = tokens.one_of(*_COMPARES)
    if not compare:
        raise tokens.fault("a comparison: >, >=, < or <=" + ("" if join else ", or / or - and a second series"))
    negative = tokens.one_of("-")
    bound = tokens.number("a number")
    bound *= _UNITS.get(tokens.one_of(*_UNITS), 1.0) * (-1.0 if negative else 1.0)
    if not math.isfinite(bound):
        raise tokens.fault("a bound that is finite")
    if not tokens.one_of("for"):
        raise tokens.fault('"for" and how long it must hold, such as "for 30 s"')
    hold = tokens.number("how long, such as 30 s")
    unit = tokens.one_of(*_DURATIONS)
    if not unit:
        raise tokens.fault(f"one of {', '.join(_DURATIONS)}")
    hold *= _DURATIONS[unit]
    if not hold <= _LONGEST_HOLD:
        raise tokens.fault("at most 24 h")
    if not tokens.ended():
        raise tokens.fault("nothing more")
    return Condition(first, join, second, compare, bound, hold)


class _Tokens:
    """The text from left to right; `place` is where the next token begins, `last` where the one before began."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = self._last = 0

    def _next(self, kind: str) -> tuple[str, int] | None:
        match = _TOKEN.match(self._text, self._place)
        return (match[kind], match.end()) if match is not None and match[kind] is not None else None

    def _take(self, end: int) -> None:
        self._last, self._place = self._place, end

    def one_of(self, *words: str) -> str:
        """The next token if it is one of these, which is then taken; else "" and nothing is taken."""
        for kind in ("sign", "word"):
            found = self._next(kind)
            if found is not None and found[0] in words:
                self._take(found[1])
                return found[0]
        return ""

    def series(self) -> str:
        found = self._next("word")
        if found is None or found[0] not in SERIES:
            raise self.fault(f"a recorded series, one of {', '.join(SERIES)}")
        self._take(found[1])
        return found[0]

    def number(self, allowed: str) -> float:
        found = self._next("number")
        if found is None:
            raise self.fault(allowed)
        self._take(found[1])
        return float(found[0])

    def ended(self) -> bool:
        return not self._text[self._place :].strip(" \t")

    def fault(self, allowed: str) -> ExpressionError:
        blanks = len(self._text[self._place :]) - len(self._text[self._place :].lstrip(" \t"))
        return ExpressionError(self._text, self._place + blanks, allowed)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(number: float) -> str:
    """A number so that reading it gives the same number again."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
