"""What one check found: the shape that all checks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .readings import Evidence

__all__ = ["Confidence", "Finding"]

Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`word` is a key of REMEDIES; `says` one sentence; `streams` the ids of those it is about."""

    word: str
    confidence: Confidence
    says: str
    evidence: tuple[Evidence, ...]
    streams: tuple[str, ...] = ()
    layer: str | None = None
