"""What one check found: the shape that all checks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .readings import Evidence

__all__ = ["Confidence", "Finding"]

Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`word` is that of a cause in CAUSES; `says` one sentence; `streams` the ids of those it is about.

    culprit   what accounts for most of the growth: a type, a task's function, a child process; None where nothing does
    path      what keeps the culprit alive, from a root of the program on; None where that is not known
    next      the command that decides what is open here, where it is another one than the cause's own
    outdated  whether the capture that it stands on shows growth of another pace than memory has now: another one tells more
    captured  whether it tells what a capture found to be held, and not whether that grows
    line      the line that allocates most of what grows, by the live heap, with its figures; see `culprit/growing.py`
    load      bytes of growth that are explained by the streams or connections which clients have opened meanwhile
    unheld    whether no container of Python's holds what grows: then it is no cache that fills
    """

    word: str
    confidence: Confidence
    says: str
    evidence: tuple[Evidence, ...]
    streams: tuple[str, ...] = ()
    layer: str | None = None
    culprit: str | None = None
    path: str | None = None
    next: str | None = None
    unheld: bool = False
    outdated: bool = False
    captured: bool = False
    line: Mapping[str, Any] | None = None
    load: float = 0.0
