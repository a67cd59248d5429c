"""Lines of workers: each number with the processes that have had it, so that a worker that is replaced is judged with its past.

A process follows another one in its line where it takes the number soon after the other's end and has the same parent: that is
a supervisor which replaces its workers. A service that is started anew begins new lines.
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

# The lives that are judged with the present one.
LIVES = 12
# A supervisor replaces a worker within seconds; who comes later is a scaling-up, or a restart by hand.
_FOLLOWS_SECONDS = 60.0
# Shared by all processes of the cgroup: it goes on over a replacement, and nothing of it is a worker's warm-up.
_SHARED = "cgroup_working_bytes"


@dataclass
class _Line:
    parent: Identity | None
    ended: float  # monotonic; infinite while one of the line lives
    lives: deque[Life] = field(default_factory=lambda: deque(maxlen=LIVES))


class Lineage:
    """The lines of one service."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def begun(self, worker: str, parent: Identity | None, earlier: Iterable[Life] = ()) -> None:
        """A process has taken this number. `earlier`: lives that an earlier monitor recorded in this line."""
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
        """The process that had this number has ended."""
        line = self._lines.setdefault(worker, _Line(None, 0.0))
        line.lives.append(life)
        line.ended = time.monotonic()

    def lives(self, worker: str) -> tuple[Life, ...]:
        """The predecessors of the process that has this number, the oldest first."""
        line = self._lines.get(worker)
        return tuple(line.lives) if line else ()


def life_of(columns: Mapping[str, list[float]], started: object, names: Iterable[str]) -> Life | None:
    """The life that a recording shows: `columns` by the fields' names, NaN where one is not known; None without readings.

    started   the process's, seconds since the epoch; anything else: the first reading is its start
    names     the series that are to be judged
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
