"""Counts each worker's captures by outcome, and their durations, since this monitor began."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ...agent.histogram import STREAM_SECONDS, Histogram

__all__ = ["CaptureCounts", "Counting"]


@dataclass(frozen=True)
class CaptureCounts:
    """The counts of one worker.

    outcomes        (kind, outcome) -> count; outcome: done, failed, cancelled, or refused (busy, too costly, no room)
    seconds         kind -> histogram of the seconds from the request until everything was rendered
    artifact_bytes  of its kept captures
    """

    outcomes: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifact_bytes: int = 0


class Counting:
    """Counts the ends of captures."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[str, str, str]] = Counter()
        self._seconds: dict[tuple[str, str], Histogram] = {}

    def ended(self, worker: str, kind: str, outcome: str, seconds: float) -> None:
        self._outcomes[worker, kind, outcome] += 1
        self._seconds.setdefault((worker, kind), Histogram(STREAM_SECONDS)).observe(seconds)

    def refused(self, worker: str, kind: str) -> None:
        self._outcomes[worker, kind, "refused"] += 1

    def of(self, worker: str, artifact_bytes: int) -> CaptureCounts:
        return CaptureCounts(
            {(kind, outcome): count for (name, kind, outcome), count in self._outcomes.items() if name == worker},
            {kind: took.to_json() for (name, kind), took in self._seconds.items() if name == worker},
            artifact_bytes,
        )
