"""From a recording: does this worker's memory grow, what does a finished stream leave behind, and when is the limit met?

Three windows are judged, two minutes, ten and an hour: a leak that has just begun shows in the first long before
the others, a slow one only in the last. Each may err at a third of the level, so that all together err at the whole.

A worker that is recycled (max_requests) lives too short for any window: in-use bytes and RSS are then judged within its line's
lives, together. The cgroup's working set goes on over a replacement, and is judged over the whole line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...analysis.drift import Drift, drift
from ...analysis.lives import Life, recycled
from ...analysis.trend import WINDOWS, Trend, pooled, seconds_to_limit, telling, warm_up_ends
from .ring import Recording

__all__ = ["COLUMNS", "LEVEL", "Growth", "Outlook", "judge", "outlook"]

LEVEL = 0.05
# What is judged: in-use bytes show a leak before an allocator must ask the system for more; the limit is on the last.
SERIES = ("in_use_bytes", "rss_bytes", "cgroup_working_bytes")
COLUMNS = ("time", *SERIES, "cgroup_limit_bytes", "streams_finished_total")


@dataclass(frozen=True, slots=True)
class Growth:
    """What one series did in the window that says most: the shortest in which it grows, else the longest that was judged.

    window       seconds, the window's whole length
    finished     streams that finished in the time judged, None where nobody counts them
    lives        how many lives the trend is of; 1: of this process alone
    drift        the slope with its sharper interval, over the same time; None where it cannot be told
    life_seconds of a worker that is recycled, how long a life lasts, by the median
    """

    series: str
    window: float
    trend: Trend
    finished: float | None
    lives: int = 1
    life_seconds: float | None = None
    drift: Drift | None = None

    @property
    def per_life(self) -> float | None:
        """Bytes that a life gains, of a worker that is recycled; None of others, and where it is not known."""
        return None if self.life_seconds is None or self.trend.slope is None else self.trend.slope * self.life_seconds

    def to_json(self) -> dict[str, Any]:
        per = self.trend.per(self.finished / 1000) if self.finished else None
        return {
            "series": self.series,
            "window_seconds": self.window,
            **self.trend.to_json(),
            "lives": self.lives,
            "life_seconds": self.life_seconds,
            "per_life": self.per_life,
            "finished_streams": self.finished,
            "per_1000_streams": None if per is None else {"slope": per[0], "low": per[1], "high": per[2]},
        }


@dataclass(frozen=True, slots=True)
class Outlook:
    """`seconds_to_limit` from the time of the last reading on, at the present slope; None: not growing, or no limit."""

    growths: tuple[Growth, ...]
    limit_bytes: float | None
    used_bytes: float | None
    seconds_to_limit: float | None

    @property
    def memory(self) -> Drift | None:
        """The slope of in-use memory, bytes a second; of RSS where that is not known; None where it cannot be told."""
        of = {growth.series: growth.drift for growth in self.growths}
        return of.get("in_use_bytes") or of.get("rss_bytes")

    @property
    def per_stream(self) -> tuple[float, float, float] | None:
        """Bytes of in-use memory that each finished stream left behind: the low end of the interval, the estimate, the high
        end.

        None where it cannot be told, where no stream finished, and where nobody counts them.
        """
        growth = next((each for each in self.growths if each.series == "in_use_bytes"), None)
        if growth is None or growth.drift is None or not growth.finished:
            return None
        share = growth.drift.seconds / growth.finished
        return growth.drift.low * share, growth.drift.slope * share, growth.drift.high * share

    def to_json(self) -> dict[str, Any]:
        return {
            "series": {growth.series: growth.to_json() for growth in self.growths},
            "limit_bytes": self.limit_bytes,
            "used_bytes": self.used_bytes,
            "seconds_to_limit": self.seconds_to_limit,
        }


def outlook(recording: Recording, lives: Sequence[Life] = ()) -> Outlook:
    """Judge the finest ring of a recording, of a worker that had these predecessors."""
    names = [name for name, _ in recording.header.fields]
    by_field = zip(*recording.rings[0].records, strict=True)
    columns: dict[str, list[float]] = {name: list(column) for name, column in zip(names, by_field, strict=False)}
    return judge(columns, recording.header.process.get("started"), lives)


def judge(columns: Mapping[str, list[float]], started: object, lives: Sequence[Life] = ()) -> Outlook:
    """Judge readings by their fields' names: `time`, and of COLUMNS those that there are, NaN where one is not known.

    started   the process's, seconds since the epoch; anything else: the first reading is its start
    lives     of its predecessors under the same number
    """
    times = columns.get("time")
    if not times:
        return Outlook((), None, None, None)
    now = times[-1]
    born = float(started) if isinstance(started, int | float) else times[0]
    warm = warm_up_ends(born, now)
    in_line = recycled(lives, now - born)
    growths = tuple(
        _in_line(name, times, columns, warm, lives)
        if in_line
        else _growth(name, times, columns[name], columns.get("streams_finished_total"), warm, now)
        for name in SERIES
        if name in columns
    )
    limit = _last(columns.get("cgroup_limit_bytes"))
    used = _last(columns.get("cgroup_working_bytes"))
    charged = next((growth.trend for growth in growths if growth.series == "cgroup_working_bytes"), None)
    seconds = seconds_to_limit(charged, used, limit) if charged is not None and used is not None else None
    return Outlook(growths, limit, used, seconds)


def _in_line(
    name: str, times: list[float], columns: Mapping[str, list[float]], warm: float, lives: Sequence[Life]
) -> Growth:
    """Of a worker that is recycled: within its lives, or over all of them where the series is the cgroup's."""
    own = [(at, value) for at, value in zip(times, columns[name], strict=True) if not math.isnan(value)]
    series = [life.series.get(name, ()) for life in lives]
    if name == "cgroup_working_bytes":
        joined = [point for life in series for point in life] + own
        at, values = [point[0] for point in joined], [point[1] for point in joined]
        return _growth(name, at, values, None, at[0] if at else warm, at[-1] if at else warm)
    slope = pooled([*series, [point for point in own if point[0] >= warm]], level=LEVEL)
    counted = [life.finished for life in lives if life.finished is not None]
    # Streams of the time judged: the lives' own, less those of the warm-ups, which are as dense as the others.
    share = slope.seconds / max(1e-9, sum(life.seconds for life in lives))
    return Growth(
        name,
        slope.seconds,
        slope,
        sum(counted) * min(1.0, share) if len(counted) == len(lives) else None,
        len(lives) + 1,
        median(life.seconds for life in lives),
    )


def _growth(
    name: str, times: list[float], values: list[float], finished: list[float] | None, warm: float, now: float
) -> Growth:
    points = [(time, value) for time, value in zip(times, values, strict=True) if not math.isnan(value)]
    level = LEVEL / len(WINDOWS)
    window, judged = telling(points, level=level, since=warm, now=now)
    slope = drift(points, level=level, since=max(warm, now - window))
    return Growth(name, window, judged, _finished(times, finished, judged), drift=slope)


def _finished(times: list[float], totals: list[float] | None, judged: Trend) -> float | None:
    if totals is None or judged.since is None:
        return None
    inside = [
        total for time, total in zip(times, totals, strict=True) if time >= judged.since and not math.isnan(total)
    ]
    return max(0.0, inside[-1] - inside[0]) if inside else None


def _last(values: list[float] | None) -> float | None:
    """The latest that is known, unless that is unknown now."""
    return None if not values or math.isnan(values[-1]) else values[-1]
