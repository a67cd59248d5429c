"""Adds to a finding about growth the line of code that allocates what grows, where the live heap tells.

It changes neither the cause nor the confidence: the live heap sees whose memory it is, and not why it is kept. The line is the
finding's culprit where no capture has named one, and where the process is no longer young: while it is, a cache that fills
would be accused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .culprit.beyond import growth
from .culprit.growing import grower
from .finding import Finding
from .readings import Readings
from .youth import is_young

__all__ = ["with_line"]

_OF_GROWTH: Final = frozenset({"retained_objects", "native_growth", "memory_growth"})


def with_line(readings: Readings, found: Finding) -> Finding:
    """The finding with its line, and what the live heap knows of it as evidence."""
    if readings.lines is None or found.word not in _OF_GROWTH:
        return found
    grown = growth(readings)
    if grown is None:  # it is in mappings of neither allocator, of which the live heap sees nothing
        return found
    named, evidence = grower(readings, grown)
    if evidence is not None:
        found = replace(found, evidence=(*found.evidence, evidence))
    if named is None:
        return found
    culprit = found.culprit if found.culprit is not None or is_young(readings) else named.row.name
    return replace(found, says=f"{found.says} {named.says}", culprit=culprit, line=named.to_json())
