"""Adds to a finding about growth the line of code that allocates what grows, where the live heap tells.

It changes neither the cause nor the confidence: the live heap sees whose memory it is, and not why it is kept. The line is the
finding's culprit where no capture has named one, and where the process is no longer young: while it is, a cache that fills
would be accused. Of a verdict that is open it is told, and accuses nobody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .culprit.beyond import growth
from .culprit.growing import grower
from .finding import Finding
from .readings import Readings
from .startup import is_young

__all__ = ["with_line"]

_OF_GROWTH: Final = frozenset({"retained_objects", "native_growth", "memory_growth"})


def with_line(readings: Readings, finding: Finding) -> Finding:
    """The finding with its line, and what the live heap knows of it as evidence."""
    judged = _growth(readings, finding)
    if judged is None:
        return finding
    line, evidence = grower(readings, *judged)
    if evidence is not None:
        finding = replace(finding, evidence=(*finding.evidence, evidence))
    if line is None:
        return finding
    accused = finding.word in _OF_GROWTH and not is_young(readings)
    culprit = finding.culprit or (line.row.name if accused else None)
    return replace(finding, says=f"{finding.says} {line.says}", culprit=culprit, line=line.to_json())


def _growth(readings: Readings, finding: Finding) -> tuple[float | None, float] | None:
    """(since when, bytes a second) of the growth that the finding is about; None where there is none that a heap could hold.

    Where the verdict is open because the agent does not answer, or not often enough, the kernel tells that memory grows.
    """
    if finding.word in _OF_GROWTH:
        grown = growth(readings)  # None where it is in mappings of neither allocator
        return None if grown is None else (grown.rise.trend.since, grown.per_second)
    seen = readings.seen_from_outside if finding.word == "inconclusive" and not readings.window else None
    return None if seen is None else (seen[1].trend.since, seen[1].trend.slope or 0.0)
