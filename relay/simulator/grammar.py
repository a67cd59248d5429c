"""The model's name is the script: `sim:events=500,size=2048,pace=200,first=0.5,fault=stall@100,seed=7`.

    model  = "sim:" [ item { "," item } ]  |  any other name, which gets the defaults
    item   = key "=" value
    events = content events, or `inf`            size  = bytes of text in each content event
    pace   = events per second; 0: as fast as the client takes them
    first  = seconds before the first byte       seed  = whole number
    fault  = one of
             stall@N        after N events nothing more is sent; the connection stays open
             disconnect@N   after N events the connection is closed, without the end of the body
             malformed@N    after N events comes one whose data is not JSON, then the rest
             endless@N      after N events comes one that never ends
             429, 500       an error instead of an answer;  429xK, 500xK: for the first K requests of that name

N counts all events of the stream from the first one, which has the role. A name that begins with `sim:` and does not follow
the grammar is an error that names the wrong part, so that a typing error is never a silent default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["PREFIX", "STREAM_FAULTS", "Fault", "GrammarError", "Script", "parse"]

PREFIX = "sim:"
STREAM_FAULTS = ("stall", "disconnect", "malformed", "endless")
STATUS_FAULTS = ("429", "500")

# Larger values are typing errors: for more events there is `inf`, and no relay lets an event of 16 MiB through.
_MAX_EVENTS = 10**9
_MAX_SIZE = 16 * 1024 * 1024
_MAX_PACE = 1e6
_MAX_FIRST_SECONDS = 3600.0

_FAULT = re.compile(
    rf"(?P<kind>{'|'.join(STREAM_FAULTS)})@(?P<at>\d{{1,10}})|(?P<status>{'|'.join(STATUS_FAULTS)})(x(?P<times>\d{{1,6}}))?"
)


class GrammarError(ValueError):
    """The model's name breaks the grammar. The message names the wrong part and what would be right."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault. `at` is the number of events before it; `times` the number of requests that get it (None: all)."""

    kind: str
    at: int = 0
    times: int | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status of a fault that is an error instead of an answer, else None."""
        return int(self.kind) if self.kind in STATUS_FAULTS else None


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed name. `events` (None: endless), `size` in bytes, `pace` in events a second (0: unpaced), `first` in seconds."""

    events: int | None = 64
    size: int = 24
    pace: float = 50.0
    first: float = 0.05
    fault: Fault | None = None
    seed: int = 0


def parse(model: str, seed: int = 0) -> Script:
    """Parse a model's name; `seed` is the default where the name has none. Raises GrammarError.

    >>> parse("sim:events=2,pace=0,fault=stall@1")
    Script(events=2, size=24, pace=0.0, first=0.05, fault=Fault(kind='stall', at=1, times=None), seed=0)
    """
    values: dict[str, Any] = {"seed": seed}
    if not model.startswith(PREFIX):
        return Script(**values)
    text = model.removeprefix(PREFIX)
    seen = set()
    for item in text.split(",") if text else ():
        key, equals, value = item.partition("=")
        if not equals:
            raise GrammarError(f"{item!r} in the model name is not KEY=VALUE")
        if key not in _KEYS:
            raise GrammarError(f"unknown key {key!r} in the model name, one of {', '.join(_KEYS)}")
        if key in seen:
            raise GrammarError(f"the key {key!r} stands twice in the model name")
        seen.add(key)
        values[key] = _KEYS[key](key, value)
    return Script(**values)


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def convert(key: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 18) or not least <= int(value) <= most:
            raise GrammarError(f"{key}={value} in the model name is not a whole number from {least} to {most}")
        return int(value)

    return convert


def _real(most: float) -> Callable[[str, str], float]:
    def convert(key: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number <= most:
            raise GrammarError(f"{key}={value} in the model name is not a number from 0 to {most:g}")
        return number

    return convert


def _events(key: str, value: str) -> int | None:
    return None if value == "inf" else _whole(0, _MAX_EVENTS)(key, value)


def _fault(key: str, value: str) -> Fault:
    match = _FAULT.fullmatch(value)
    if match is None:
        forms = [f"{kind}@N" for kind in STREAM_FAULTS] + [
            form for kind in STATUS_FAULTS for form in (kind, f"{kind}xK")
        ]
        raise GrammarError(f"{key}={value} in the model name is no fault, one of {', '.join(forms)}")
    if match["kind"]:
        return Fault(match["kind"], at=int(match["at"]))
    return Fault(match["status"], times=int(match["times"]) if match["times"] else None)


_KEYS: dict[str, Callable[[str, str], Any]] = {
    "events": _events,
    "size": _whole(1, _MAX_SIZE),
    "pace": _real(_MAX_PACE),
    "first": _real(_MAX_FIRST_SECONDS),
    "fault": _fault,
    "seed": _whole(0, 10**18 - 1),
}
