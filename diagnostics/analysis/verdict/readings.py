"""What a verdict is judged from, and the few sums that all checks share. Times are seconds, sizes bytes.

Missing is not zero: a part, layer or series that nobody told is None or absent, and no check may take it for 0.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..drift import Drift, drift
from ..lines.growth import History
from ..lives import Life, Points, gained_within, recycled
from ..trend import WINDOWS, Trend, pooled, telling, trend
from ..units import format_value
from .child import Child

__all__ = ["LITTLE", "MIB", "MOST", "Evidence", "Readings", "Rise"]

MIB = 1024**2
# A verdict looks at six series in three windows; all looks together err at most in this share of the cases.
_LEVEL = 0.05 / 18
# That it does not grow is said of one of three windows; all looks together err at most in this share of the cases.
_BOUND_LEVEL = 0.05 / 3
# What accounts for less than this share of a growth is not its cause; what accounts for at most the other is none of it.
MOST, LITTLE = 0.5, 0.25
# What is buffered is counted without its objects' own headers, the allocators' rounding and its place in a queue.
_BUFFER_OVERHEAD = 1.5
# Growth that takes a tenth of the room below the limit in an hour gives a day's shift no quiet night; where there is no limit,
# a tenth of what is resident. The second: nobody is woken for less, however small the service.
_MATTERS_SHARE, _LEAST_MATTERS = 0.1, 4 * MIB
_HOUR = 3600.0
# What grows by less than this within the window is not worth anybody's night.
_LEAST_GROWTH, _LEAST_GROWTH_SHARE = 4 * MIB, 0.02
# What holds less than this is not where the memory is.
_LEAST_HELD, _LEAST_HELD_SHARE = 8 * MIB, 0.05
# Memory that an open stream may well take: its task, its frames, its connections. A WebSocket's is of the same size: its
# buffers, the two windows of its compression, what the application remembers of it.
_LOAD_A_STREAM = 256 * 1024

# Recorded from outside. All other series end where the agent stopped answering: what they showed is not what is now.
_FROM_OUTSIDE = frozenset(
    {
        "rss_bytes", "mapped_bytes", "shared_bytes", "pss_bytes", "private_bytes", "outgoing_connections",
        "client_connections", "children", "children_rss_bytes", "children_pss_bytes", "whole_pss_bytes", "threads", "fds",
        "cgroup_working_bytes", "cgroup_limit_bytes",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Evidence:
    """One number that a finding stands on. `unit`: bytes, count, seconds, or "bytes a second"."""

    what: str
    value: float
    unit: str

    @property
    def text(self) -> str:
        if self.unit == "bytes a second":
            return f"{self.what}: {format_value(round(self.value), 'bytes', signed=True)} a second"
        if self.unit == "seconds":
            return f"{self.what}: {self.value:,.0f} s"
        return f"{self.what}: {format_value(round(self.value), self.unit)}"

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "value": self.value, "unit": self.unit, "text": self.text}


@dataclass(frozen=True, slots=True)
class Rise:
    """A series that grows: its trend, and by how much within the time judged (see `Readings.gained`)."""

    trend: Trend
    amount: float

    def evidence(self, what: str) -> tuple[Evidence, ...]:
        slope = Evidence(f"{what}, slope over {self.trend.seconds:.0f} s", self.trend.slope or 0.0, "bytes a second")
        return (slope, Evidence(f"{what}, grown by", self.amount, "bytes"))


@dataclass(frozen=True)
class Readings:
    """One worker, now and as far back as it was recorded.

    state         answering, silent or outside, as the monitor's snapshot
    balance       `Balance.to_json()`; None where there is none
    layers        bytes of all open streams by layer (app, transport, kernel); None where unknown
    open_streams  None where nobody counts them
    streams       rows of the largest open streams, as the monitor's `streams_of` gives them
    series        recorded readings by the recorder's field names, each (time, value) in order of time
    since         readings before this are warm-up
    captures      kind -> the last result of this process
    window        the tracer that is open now
    unknown       what the agent should tell and cannot: the reading's name -> why
    silent        of a silent one, since when and why, for people to read
    before        what the last verdict said while it answered
    lives         processes that had this worker's number before it and were replaced, the oldest first
    age           how long this one lives
    python        the version of its interpreter; None where it is not known
    unread        what could not be read of this worker and why, by the words of `_NEEDED` in findings and the balance's parts
    offspring     its child processes that are no workers
    lines         looks at its live heap, by line; None where it keeps none, or nobody has looked yet
    memray        whether the service can import memray, which shows what C allocates; None where nobody asked
    collects      whether Python's collector runs by itself; None where it is not known
    saved         how many objects are in gc.garbage, where gc.DEBUG_SAVEALL keeps there what the collector finds; else None
    """

    state: str = "outside"
    balance: Mapping[str, Any] | None = None
    layers: Mapping[str, int | None] = field(default_factory=dict)
    open_streams: int | None = None
    streams: Sequence[Mapping[str, Any]] = ()
    series: Mapping[str, Points] = field(default_factory=dict)
    since: float = -math.inf
    captures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    window: str | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)
    silent: str = ""
    before: str = ""
    lives: Sequence[Life] = ()
    age: float | None = None
    python: str | None = None
    unread: Mapping[str, str] = field(default_factory=dict)
    offspring: Sequence[Child] = ()
    lines: History | None = None
    memray: bool | None = None
    collects: bool | None = None
    saved: int | None = None

    @property
    def recycled(self) -> bool:
        """Whether the line of processes is judged, this one being its last: it is replaced before it shows anything alone."""
        return recycled(self.lives, self.age)

    @property
    def rss(self) -> int | None:
        return None if self.balance is None else int(self.balance["rss_bytes"])

    def part(self, *names: str) -> int | None:
        """The sum of these parts of the balance; None unless all are known."""
        parts = (self.balance or {}).get("parts", {})
        sizes = [parts.get(name) for name in names]
        return None if None in sizes else sum(part for part in sizes if part is not None)

    @property
    def least_growth(self) -> float:
        """Growth below this within the window is no finding."""
        return max(_LEAST_GROWTH, _LEAST_GROWTH_SHARE * (self.rss or 0))

    @property
    def least_held(self) -> float:
        """What holds less than this is not where the memory is."""
        return max(_LEAST_HELD, _LEAST_HELD_SHARE * (self.rss or 0))

    def rss_evidence(self) -> tuple[Evidence, ...]:
        return () if self.rss is None else (Evidence("RSS", self.rss, "bytes"),)

    @property
    def room(self) -> float | None:
        """Bytes below the limit that what is charged for has left; None where there is no limit, or it is not known."""
        limit, used = (self._last(name) for name in ("cgroup_limit_bytes", "cgroup_working_bytes"))
        return None if limit is None or used is None else max(0.0, limit - used)

    @property
    def matters(self) -> float:
        """The slope, in bytes a second, from which on growth matters; see the file's constants."""
        room = self.room
        return max(_LEAST_MATTERS, _MATTERS_SHARE * ((self.rss or 0) if room is None else room)) / _HOUR

    @property
    def why_it_matters(self) -> str:
        """What growth of that slope would do in an hour, in words."""
        if self.matters * _HOUR <= _LEAST_MATTERS:
            return "the least that is worth a look"
        return "a tenth of what is resident" if self.room is None else "a tenth of the room below the limit"

    def _last(self, name: str) -> float | None:
        points = self._points(name)
        return points[-1][1] if points else None

    def _points(self, name: str) -> Points:
        return self.series.get(name, ()) if self.state == "answering" or name in _FROM_OUTSIDE else ()

    def _within(self, name: str) -> list[Points]:
        """The series of each life, this one's last, without warm-ups."""
        own = [point for point in self._points(name) if point[0] >= self.since]
        return [*(life.series.get(name, ()) for life in self.lives), own]

    @cached_property
    def _trends(self) -> dict[str, Trend]:
        return {}

    def trend(self, name: str) -> Trend | None:
        """The shortest window in which the series grows, else the longest that could be judged; None without readings.

        Of a worker that is recycled, the trend within its lives.
        """
        if name not in self._trends and self.recycled and any(within := self._within(name)):
            self._trends[name] = pooled(within, level=_LEVEL)
        points = self._points(name)
        if not points and name not in self._trends:
            return None
        if name not in self._trends:
            _, self._trends[name] = telling(points, level=_LEVEL, since=self.since, now=points[-1][0])
        return self._trends[name]

    @cached_property
    def _bounds(self) -> dict[str, Drift | None]:
        return {}

    def bounded(self, name: str) -> Drift | None:
        """The interval of the series' slope: of the longest window in which it lies below what matters, else of the longest
        that can be judged; None without readings. Of a worker that is recycled, the slope within its lives."""
        if name not in self._bounds:
            self._bounds[name] = self._bound(name)
        return self._bounds[name]

    def _bound(self, name: str) -> Drift | None:
        if self.recycled:
            trend = self.trend(name)
            if trend is None or trend.slope is None or trend.low is None or trend.high is None:
                return None
            return Drift(trend.slope, trend.low, trend.high, trend.seconds, wanders=True)
        points = self._points(name)
        if not points:
            return None
        longest: Drift | None = None
        for window in reversed(WINDOWS):
            bound = drift(points, level=_BOUND_LEVEL, since=max(self.since, points[-1][0] - window))
            if bound is not None and bound.high <= self.matters:
                return bound
            longest = longest or bound
        return longest

    def rise(self, name: str) -> Rise | None:
        """The series, if it grows."""
        trend = self.trend(name)
        if trend is None or not trend.growing:
            return None
        return Rise(trend, self.gained(name, trend.seconds) or 0.0)

    def heavy_rise(self, name: str) -> Rise | None:
        """The series of bytes, if it grows by enough to matter: in the shortest window in which it does both. What grows
        slowly and steadily grows in every window, and gains too little in a short one however long it goes on."""
        if name not in self._heavy:
            self._heavy[name] = self._first_heavy(name)
        return self._heavy[name]

    @cached_property
    def _heavy(self) -> dict[str, Rise | None]:
        return {}

    @cached_property
    def seen_from_outside(self) -> tuple[str, Rise] | None:
        """What the kernel's view grows by, and in which of its figures: ("RSS", ...) or ("Private memory", ...)."""
        for what, name in (("RSS", "rss_bytes"), ("Private memory", "private_bytes")):
            rise = self.heavy_rise(name)
            if rise is not None:
                return what, rise
        return None

    def _first_heavy(self, name: str) -> Rise | None:
        rise = self.rise(name)
        if rise is None or rise.amount >= self.least_growth or self.recycled:
            return rise if rise is not None and rise.amount >= self.least_growth else None
        points = self._points(name)
        for window in WINDOWS:
            longer = trend(points, level=_LEVEL, since=max(self.since, points[-1][0] - window))
            amount = self.gained(name, longer.seconds) or 0.0
            if longer.growing and amount >= self.least_growth:
                return Rise(longer, amount)
        return None

    def gained(self, name: str, seconds: float) -> float | None:
        """How much more there was in the last quarter of the last `seconds` than in the first, by medians of both.

        All series are measured like this, so that what one of them gained can be set against what another one did. Of a worker
        that is recycled it is the gain within one life, by the median over all lives.
        """
        if self.recycled:
            gains = sorted(gain for life in self._within(name)[:-1] if (gain := gained_within(life)) is not None)
            return gains[len(gains) // 2] if gains else None
        points = [point for point in self._points(name) if point[0] >= self.since]
        if not points:
            return None
        start = max(points[0][0], points[-1][0] - seconds)
        return gained_within([point for point in points if point[0] >= start])

    def first(self, name: str) -> float | None:
        """What there was when recording began, the least of a few readings; None without readings."""
        points = self._points(name)
        return min(value for _, value in points[:9]) if points else None

    def drift(self, name: str) -> float | None:
        """How much more there is than when recording began, warm-up included, by medians of a few readings at both ends."""
        return _drift([value for _, value in self._points(name)])

    def drifts_of(self, rare: str, often: str) -> tuple[float | None, float | None]:
        """As `drift`, of a series that is read more rarely than it is recorded, and of another one at those moments.

        Between two readings the former stays in the record as it was, and what the latter does meanwhile is no difference.
        """
        points, others = self._points(rare), self._points(often)
        times = [time for time, _ in others]
        then: list[float] = []
        for place, (time, value) in enumerate(points):
            if place and value == points[place - 1][1]:
                then.append(then[-1])
            else:
                at = bisect_right(times, time) - 1
                then.append(others[max(0, at)][1] if others else math.nan)
        return _drift([value for _, value in points]), _drift(then) if others else None

    def explained_by_load(self, amount: float, seconds: float) -> bool:
        """Whether the streams, or the connections with a task, that were opened in this time may well take so many bytes."""
        more = max(self.gained("open_streams", seconds) or 0.0, self.more_served(seconds) or 0.0)
        return more >= 1 and amount <= more * _LOAD_A_STREAM

    def more_served(self, seconds: float) -> float | None:
        """How many more connections of clients are served by a task than at the beginning of this time; None: not known.

        A WebSocket is one, and no stream. A connection that is kept for a next request has no task at most servers, and little
        memory.
        """
        clients, tasks = (self.gained(name, seconds) for name in ("client_connections", "tasks"))
        return None if clients is None or tasks is None else min(clients, tasks)

    def follows_streams(self, amount: float, seconds: float) -> bool:
        """Whether so many more things may be those of streams that were opened: at most a few for each."""
        more = self.gained("open_streams", seconds)
        return more is not None and more * 10 >= amount

    def follows_connections(self, amount: float, seconds: float) -> bool:
        """The same of clients' connections, which are counted where streams are not: a WebSocket is one, with a few tasks."""
        more = self.gained("client_connections", seconds)
        if more is None:  # none of TCP's: whatever has a descriptor, and is no connection to others
            fds, outgoing = (self.gained(name, seconds) for name in ("fds", "outgoing_connections"))
            more = None if fds is None else fds - max(0.0, outgoing or 0.0)
        return more is not None and more * 10 >= amount

    def follows_threads(self, amount: float, seconds: float) -> bool:
        """Whether so many more threads may be those of streams that were opened, or of WebSockets: one for each."""
        more = max(self.gained(name, seconds) or 0.0 for name in ("open_streams", "client_connections"))
        return more * 2 >= amount

    def mapped_elsewhere(self, amount: float) -> bool:
        """Whether so many bytes of resident memory belong to neither allocator, as the balance knows."""
        other = self.part("other")
        return other is not None and other >= amount

    def beyond_buffers(self, rise: Rise) -> float:
        """Bytes of a rise that what open streams buffer does not explain; below zero where it explains more."""
        layers = (self.gained(f"buffered_{layer}_bytes", rise.trend.seconds) for layer in ("app", "transport"))
        return rise.amount - _BUFFER_OVERHEAD * max(0.0, sum(more or 0.0 for more in layers))

    def mapped_to_files(self, rise: Rise) -> bool:
        """Whether most of what RSS gained is in mapped files or shared memory."""
        more = self.gained("mapped_bytes", rise.trend.seconds)
        return more is not None and more >= MOST * rise.amount

    def streams_evidence(self, seconds: float) -> tuple[Evidence, ...]:
        """How many streams are open, and how many more than at the beginning of this time; of connections that are no streams
        the latter."""
        more, served = self.gained("open_streams", seconds), self.more_served(seconds)
        found = [] if self.open_streams is None else [Evidence("open streams", self.open_streams, "count")]
        if more is not None:
            found.append(Evidence("more open streams in this time", more, "count"))
        if served is not None and served > max(1.0, more or 0.0):
            found.append(Evidence("more connections of clients that tasks serve, in this time", served, "count"))
        return tuple(found)

    def loaded_by(self, seconds: float) -> str:
        """What there is more of in this time, by which `explained_by_load` explains: "streams", or "clients' connections"."""
        streams, served = self.gained("open_streams", seconds) or 0.0, self.more_served(seconds) or 0.0
        return "streams" if streams >= served else "clients' connections"


def _drift(values: Sequence[float]) -> float | None:
    """By how much the last few values are more than the first few, by medians."""
    few = min(9, len(values) // 2)
    if few < 1:
        return None
    first, last = sorted(values[:few]), sorted(values[-few:])
    return last[few // 2] - first[few // 2]
