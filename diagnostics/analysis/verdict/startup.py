"""Growth in the first two minutes of a process's life: a leak looks like a cache that fills, and nothing tells them apart yet.

The law of this file: as long as a process has been recorded for fewer than 110 readings since it started, the growth of its
memory alone accuses nobody: it is told with low confidence, and the sentence says so. Memory that no container holds is an
exception, because no cache fills that way. A process that had run for long before it was first looked at is not young, and
neither is one whose predecessors were judged with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..lives import Points
from .finding import Finding
from .readings import Readings

__all__ = ["is_young", "reserved", "with_reserve"]

# Two minutes at one reading a second. A fill that ends in the first four fifths of them has been seen to end by then.
_READINGS: Final = 110
# A process that is so many times older than its recording had its start-up behind it.
_OLDER: Final = 2.0
# Verdicts that a cache, a pool or tables that are loaded when they are first asked for look like while they fill.
_OF_GROWTH: Final = frozenset(
    {"retained_objects", "native_growth", "shared_memory_growth", "memory_growth", "child_growth", "whole_growth"}
)


def is_young(readings: Readings) -> bool:
    """Whether all that was recorded of this process may be its start-up."""
    points = _recorded(readings)
    if readings.recycled or len(points) >= _READINGS:
        return False
    return readings.age is None or readings.age <= _OLDER * _seconds(points)


def with_reserve(readings: Readings, finding: Finding) -> Finding:
    """The finding, told with low confidence where it may be the start-up of a young process."""
    if finding.word not in _OF_GROWTH or finding.unheld:
        return finding
    return reserved(readings, finding, "a cache that fills, or tables that are loaded,")


def reserved(readings: Readings, finding: Finding, alike: str) -> Finding:
    """The same for a finding of any cause. `alike`: what looks like it in a young process."""
    if not is_young(readings):
        return finding
    seconds = _seconds(_recorded(readings))
    says = (
        f"{finding.says} But only {seconds:.0f} s are recorded since it started: {alike} look like this, too, and end."
    )
    return replace(finding, confidence="low", says=says)


def _recorded(readings: Readings) -> Points:
    """The series that is read most often: of one worker its RSS, of the service as a whole perhaps its PSS alone."""
    return max((readings.series.get(name, ()) for name in ("rss_bytes", "pss_bytes")), key=len)


def _seconds(points: Points) -> float:
    return points[-1][0] - points[0][0] if points else 0.0
