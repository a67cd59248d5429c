"""Lives of one worker: what a process that was replaced leaves behind for judging its successors.

gunicorn's and uvicorn's max_requests replace a worker after so many requests: no life is long enough for a trend, and each
begins anew. The successor takes the number of its predecessor, and with it the number's history, as lives.

The law of this file: a life is judged by what happened within it. Nothing is ever subtracted across two lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Life", "Points", "gained_within", "recycled", "thinned"]

Points = Sequence[tuple[float, float]]

# A worker that outlives its predecessors so many times is judged alone: it is not replaced as they were.
_OUTLIVES = 2.0
# What is kept of a series: enough for twelve blocks of five readings.
_KEPT = 60


@dataclass(frozen=True, slots=True)
class Life:
    """One process that held a worker's number, from start to end.

    seconds    how long it lived
    series     recorded readings by the recorder's field names, (time, value), without the warm-up
    finished   streams that finished in its whole life; None where nobody counts them
    """

    seconds: float
    series: Mapping[str, Points]
    finished: float | None = None


def recycled(lives: Sequence[Life], age: float | None) -> bool:
    """Whether a worker of this age (seconds) is one of a line that is replaced regularly, so that the line is to be judged."""
    return bool(lives) and age is not None and age < _OUTLIVES * median(life.seconds for life in lives)


def gained_within(points: Points) -> float | None:
    """How much more there was in the last quarter of the time than in the first, by medians of both; None without readings."""
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
