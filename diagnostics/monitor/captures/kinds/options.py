"""The options of a capture and their checks: a check returns the value, or raises UsageError that names the option."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ....errors import UsageError

__all__ = [
    "DEFAULT_SECONDS",
    "MAX_SECONDS",
    "WINDOW_OPTIONS",
    "Option",
    "boolean",
    "capture_id",
    "integer",
    "milliseconds",
    "seconds",
    "seconds_or_now",
    "words",
]

# (the option's name, the given value) -> the checked value
Option = Callable[[str, object], Any]

# A window slows the service down, so a longer one is taken for a mistake.
MAX_SECONDS = 300.0
DEFAULT_SECONDS = 5.0


def seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}, not a number", remedy=f"choose more than 0 and at most {MAX_SECONDS:g}")
    if not 0 < value <= MAX_SECONDS:  # also True for NaN
        raise UsageError(f"{name} is {value!r:.60}", remedy=f"choose more than 0 and at most {MAX_SECONDS:g}")
    return float(value)


def seconds_or_now(name: str, value: object) -> float:
    """Like `seconds`; 0 means this moment instead of a window."""
    return 0.0 if value == 0 and not isinstance(value, bool) else seconds(name, value)


def integer(low: int, high: int) -> Option:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"{name} is {value!r}", remedy=f"choose a whole number from {low} to {high}")
        return value

    return check


def boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}", remedy="choose true or false")
    return value


def words(*allowed: str) -> Option:
    def check(name: str, value: object) -> str:
        if value not in allowed:
            raise UsageError(f"{name} is {value!r}", remedy=f"choose one of {', '.join(allowed)}")
        return str(value)

    return check


def milliseconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 60_000:
        raise UsageError(f"{name} is {value!r}", remedy="choose more than 0 and at most 60000 (milliseconds)")
    return float(value)


def capture_id(name: str, value: object) -> str:
    """A non-empty string. The controller checks that the capture exists."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} is {value!r}", remedy="write the id of an earlier capture of this kind")
    return value


# Options of every kind that opens a window.
WINDOW_OPTIONS: Mapping[str, tuple[Any, Option]] = {
    "seconds": (DEFAULT_SECONDS, seconds),
    "max_lag_ms": (1000.0, milliseconds),
}
