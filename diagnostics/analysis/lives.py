"""Lives of one worker: the recordings of its replaced processes, for judging their successors.

gunicorn's and uvicorn's max_requests replace a worker after so many requests: no life is long enough for a trend, and each
begins anew. The successor takes the number of its predecessor, and with it the number's history, as lives.

The law of this file: a life is judged by what happened within it. Nothing is ever subtracted across two lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from .lines.lives import LineLife

__all__ = ["Life", "Points", "gained_within", "recycled", "thinned"]

Points = Sequence[tuple[float, float]]

# A worker that lives this many times as long as its predecessors is judged alone: it is not replaced regularly.
_OUTLIVES = 2.0
# Points kept of a series: enough for twelve blocks of five readings.
_KEPT = 60


@dataclass(frozen=True, slots=True)
class Life:
    """One process that had a worker's number, from start to end.

    seconds    how long it lived
    series     the recorder's field name -> (time, value) readings, without the warm-up
    finished   number of streams that finished in its whole life; None where they are not counted
    lines      what its lines of code gained after the warm-up; None where it kept no live heap, or lived too short
    """

    seconds: float
    series: Mapping[str, Points]
    finished: float | None = None
    lines: LineLife | None = None


def recycled(lives: Sequence[Life], age: float | None) -> bool:
    """Whether a worker of this age (seconds) is replaced regularly, so that its predecessors are judged together with it."""
    return bool(lives) and age is not None and age < _OUTLIVES * median(life.seconds for life in lives)


def gained_within(points: Points) -> float | None:
    """The median of the last quarter of the time minus that of the first; None without readings."""
    if not points:
        return None
    start, end = points[0][0], points[-1][0]
    quarter = (end - start) / 4
    early = sorted(value for time, value in points if time <= start + quarter)
    late = sorted(value for time, value in points if time >= end - quarter)
    return late[len(late) // 2] - early[len(early) // 2]


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most 60 points: medians of the time and value of as many equal runs of readings."""
    size = -(-len(points) // _KEPT)
    if size <= 1:
        return list(points)
    runs = [points[at : at + size] for at in range(0, len(points), size)]
    return [(median(time for time, _ in run), median(value for _, value in run)) for run in runs]
