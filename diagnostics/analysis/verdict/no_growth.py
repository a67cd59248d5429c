"""Checks that find no cause for alarm: free memory that is kept, memory that follows the load, memory that does not grow.

The law of this file: that something does not grow is said only where the whole interval of its slope lies below what matters
(`Readings.matters`), and the sentence tells both. Where the interval reaches above it nothing is said: the verdict is then
inconclusive, and tells how much longer it takes.
"""

from __future__ import annotations

from typing import Final

from ..drift import Drift
from ..units import format_value
from .finding import Finding
from .readings import MIB, Evidence, Readings

__all__ = ["allocator", "load", "open_questions"]

# A free part below both is an allocator's working stock.
_FREE_HELD, _FREE_SHARE = 32 * MIB, 0.25

# Whose growth must be excluded before a worker is called sound: (series, what it is).
_MUST_NOT_GROW: Final = (("in_use_bytes", "in-use memory"), ("rss_bytes", "RSS"), ("private_bytes", "private memory"))
# What must have been read as well: (series, what it is).
_NEEDED: Final = (
    ("tasks", "how many tasks there are"),
    ("private_bytes", "what of its memory is private"),
    ("children_rss_bytes", "what its children take"),
)


def allocator(readings: Readings) -> Finding | None:
    free = readings.part("python_free", "malloc_free")
    if free is None or free < max(_FREE_HELD, _FREE_SHARE * (readings.rss or 0)):
        return None
    evidence = tuple(
        Evidence(f"part {name}", readings.part(name) or 0, "bytes") for name in ("python_free", "malloc_free")
    )
    says = f"{format_value(free, 'bytes')} of resident memory are free, and kept by the allocators."
    return Finding("allocator_free", "high", says, (*evidence, *readings.rss_evidence()))


def load(readings: Readings) -> Finding | None:
    """Memory that follows the streams, or that does not grow at all: certain only where all that could grow was seen."""
    in_use = readings.trend("in_use_bytes")
    if in_use is None or in_use.state == "unknown":
        return None
    rise = readings.heavy_rise("in_use_bytes")
    if rise is None and (readings.heavy_rise("rss_bytes") or readings.heavy_rise("private_bytes")):
        return None  # it grows, and not by what is in use
    unseen = _unseen(readings)
    if rise is not None:
        evidence = (*rise.evidence("in use"), *readings.streams_evidence(rise.trend.seconds))
        follows = readings.explained_by_load(rise.amount, rise.trend.seconds)
        rest = readings.beyond_buffers(rise)
        if not (follows or rest < readings.least_growth or readings.explained_by_load(rest, rise.trend.seconds)):
            return None  # it grows by more than open streams explain
        says = f"the number of open {readings.loaded_by(rise.trend.seconds)}" if follows else "what open streams buffer"
        return Finding("load_only", "medium", f"Memory grows with {says}.{unseen}", evidence, load=rise.amount)
    open_series = open_questions(readings)
    if open_series:
        return _with_streams(readings, open_series, unseen)
    bounds = {what: bound for name, what in _MUST_NOT_GROW if (bound := readings.bounded(name)) is not None}
    inside = bounds.get("in-use memory")
    if inside is None:
        return None
    most = max(bound.high for bound in bounds.values())
    says = (
        f"Memory does not grow by as much as matters: by at most {an_hour(max(0.0, most))} an hour over "
        f"{inside.seconds:.0f} s (95 % sure), where {an_hour(readings.matters)} would be {readings.why_it_matters}."
    )
    evidence = (
        *(slope_evidence(what, bound) for what, bound in bounds.items()),
        *readings.streams_evidence(inside.seconds),
        *readings.rss_evidence(),
    )
    beside = readings.heavy_rise("cgroup_working_bytes") if readings.room is not None else None
    if beside is not None:
        amount = format_value(round(beside.amount), "bytes")
        unseen += f" But what its cgroup is charged for grew by {amount}: see the verdict on the service."
    return Finding("load_only", "medium" if unseen else "high", says + unseen, evidence)


def _with_streams(readings: Readings, open_series: list[tuple[str, Drift]], unseen: str) -> Finding | None:
    """Growth that is not excluded, but all of which would be what the streams take that were opened meanwhile."""
    if not all(readings.explained_by_load(bound.high * bound.seconds, bound.seconds) for _, bound in open_series):
        return None
    evidence = [slope_evidence(what, bound) for what, bound in open_series]
    evidence += readings.streams_evidence(open_series[0][1].seconds)
    gains = (bound.slope * bound.seconds for _, bound in open_series)
    opened = readings.loaded_by(open_series[0][1].seconds)
    says = f"Whatever memory gains is no more than the {opened} take that were opened meanwhile.{unseen}"
    return Finding("load_only", "medium", says, tuple(evidence), load=max(0.0, *gains))


def open_questions(readings: Readings) -> list[tuple[str, Drift]]:
    """The series that may grow by as much as matters, as far as their readings tell, each with what they tell."""
    bounds = ((what, readings.bounded(name)) for name, what in _MUST_NOT_GROW)
    return [(what, bound) for what, bound in bounds if bound is not None and bound.high > readings.matters]


def an_hour(slope: float) -> str:
    """Bytes a second, as bytes an hour in words."""
    return format_value(round(slope * 3600), "bytes")


def slope_evidence(what: str, bound: Drift) -> Evidence:
    words = (
        f"{what}, slope over {bound.seconds:.0f} s (95 % sure: "
        f"{format_value(round(bound.low), 'bytes', signed=True)} to {format_value(round(bound.high), 'bytes', signed=True)})"
    )
    return Evidence(words, bound.slope, "bytes a second")


def _unseen(readings: Readings) -> str:
    """What could hold growth and was not read, as a sentence with a space before it; empty where everything was."""
    missing = [
        f"{what} ({readings.unread[name]})" if name in readings.unread else what
        for name, what in _NEEDED
        if name not in readings.unknown and ((trend := readings.trend(name)) is None or trend.state == "unknown")
    ]
    return f" Not known: {', '.join(missing)}." if missing else ""
