"""Lines of workers: the processes that have had each worker's number, so that a replaced worker is judged with its
predecessors.

A process continues a line where it takes the number soon after the other's end and has the same parent, a supervisor that
replaces its workers. A service that is started anew begins new lines.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...analysis.lives import Life, thinned
from ...analysis.trend import warm_up_ends
from ..kernel.process import Identity

__all__ = ["LIVES", "Lineage", "life_of"]

# How many lives are judged together with the present one.
LIVES = 12
# A supervisor replaces a worker within seconds; a later process is a scaling-up, or a restart by hand.
_FOLLOWS_SECONDS = 60.0
# A series of the whole cgroup: it continues over a worker's replacement, and has no warm-up of its own.
_SHARED = "cgroup_working_bytes"


@dataclass
class _Line:
    parent: Identity | None
    ended: float  # monotonic seconds; infinite while its process lives
    lives: deque[Life] = field(default_factory=lambda: deque(maxlen=LIVES))


class Lineage:
    """The lines of one service's workers."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def begun(self, worker: str, parent: Identity | None, earlier: Iterable[Life] = ()) -> None:
        """A process has become the worker `worker`. `earlier`: lives of this line that an earlier monitor recorded."""
        line = self._lines.get(worker)
        follows = (
            line is not None
            and parent is not None
            and line.parent == parent
            and time.monotonic() - line.ended <= _FOLLOWS_SECONDS
        )
        if line is None or not follows:
            self._lines[worker] = line = _Line(parent, math.inf)
            line.lives.extend(earlier)
        line.ended = math.inf

    def ended(self, worker: str, life: Life) -> None:
        """The process of the worker `worker` has ended."""
        line = self._lines.setdefault(worker, _Line(None, 0.0))
        line.lives.append(life)
        line.ended = time.monotonic()

    def lives(self, worker: str) -> tuple[Life, ...]:
        """The predecessors of the worker's present process, oldest first."""
        line = self._lines.get(worker)
        return tuple(line.lives) if line else ()


def life_of(columns: Mapping[str, list[float]], started: object, names: Iterable[str]) -> Life | None:
    """The life of a process from its recording; None where that has no readings.

    columns   field's name -> readings, NaN for unknown ones
    started   the process's start, seconds since the epoch; any other type: the first reading is taken as the start
    names     the series that are judged
    """
    times = columns.get("time")
    if not times:
        return None
    born = float(started) if isinstance(started, int | float) else times[0]
    warm = warm_up_ends(born, times[-1])
    series = {
        name: thinned(
            [
                (at, value)
                for at, value in zip(times, columns[name], strict=True)
                if not math.isnan(value) and (at >= warm or name == _SHARED)
            ]
        )
        for name in {*names, _SHARED}
        if name in columns
    }
    finished = [value for value in columns.get("streams_finished_total", ()) if not math.isnan(value)]
    return Life(times[-1] - born, series, finished[-1] if finished else None)
