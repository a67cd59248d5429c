"""Memory figures of one round of streams, from a series of readings.

    growth    bytes that an open stream gains for each chunk that its upstream offers: the median slope of in-use
              bytes over chunks offered, after the transient in which socket and transport buffers fill, divided by the
              open streams. The bytes that each ended stream left behind are subtracted first: they are `remains`, and
              with short streams in succession they would look like growth of the open ones
    remains   bytes that stay for each stream that ended: (in-use bytes after settling - in-use bytes before) / streams
    resident  the same of resident memory
    peak      bytes that a concurrent stream costs at the worst moment of the round
    load      bytes that memory gains for each stream that is offered beyond a light load, at the level that a quarter of the
              readings reach: the slope through two rounds
    held      bytes that each client's stream still holds at the end of the round, the client being there and not reading

The figures are of in-use bytes, and of RSS only beside them, with a wider bound: freed pages that an allocator keeps are no
growth of the service; but memory that no allocator counts (a library's own mappings) is in RSS only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

__all__ = [
    "Reading",
    "Round",
    "growth_per_chunk",
    "held_per_stream",
    "in_window",
    "kernel_queues",
    "load_per_stream",
    "peak_per_stream",
    "remains_per_stream",
    "resident_per_stream",
    "slope",
]

# Queues that grew by this factor from the first third of a round's readings to the last third were still filling.
_STILL_FILLING = 1.1


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the subject. `time`: monotonic seconds; bytes are summed over all workers.

    ended          streams of the round that had ended
    kernel_bytes   in the send queues of the subject's sockets, for clients that do not read
    """

    time: float
    in_use_bytes: int
    rss_bytes: int
    tasks: int | None
    fds: int
    ended: int = 0
    kernel_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one subject.

    start            monotonic seconds at which the first client connected
    open_streams     number of streams open at the same time
    ended_streams    number of streams that had ended after settling
    before, after    readings of the settled subject; readings: those taken while the streams were open
    """

    start: float
    open_streams: int
    ended_streams: int
    before: Reading
    readings: tuple[Reading, ...]
    after: Reading

    @property
    def seconds(self) -> float:
        """Seconds from the start to the last reading with open streams."""
        return self.readings[-1].time - self.start if self.readings else 0.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of points (Theil 1950, Sen 1968). Raises ValueError where all x are equal.

    Not least squares: on a busy machine a service that got no core for a second reads all that has arrived meanwhile at once,
    and a single such reading at the end of a round would count as growth.
    """
    if len(points) < 2:
        raise ValueError(f"a slope needs two points, there are {len(points)}")
    slopes = [(y - v) / (x - u) for (u, v), (x, y) in combinations(points, 2) if x != u]
    if not slopes:
        raise ValueError("a slope needs two different x")
    return median(slopes)


def in_window(readings: Sequence[Reading], start: float, transient_seconds: float) -> list[Reading]:
    """The readings taken after the transient."""
    return [reading for reading in readings if reading.time >= start + transient_seconds]


def growth_per_chunk(round_: Round, chunks_per_second: float, transient_seconds: float) -> float:
    """Bytes gained by one open stream per chunk offered to it. `chunks_per_second`: of one upstream stream."""
    window = in_window(round_.readings, round_.start, transient_seconds)
    remains = max(0.0, remains_per_stream(round_))
    points = [
        ((reading.time - round_.start) * chunks_per_second, reading.in_use_bytes - remains * reading.ended)
        for reading in window
    ]
    return slope(points) / round_.open_streams


def remains_per_stream(round_: Round) -> float:
    """In-use bytes that stay per stream that ended; below zero where the round freed memory."""
    return (round_.after.in_use_bytes - round_.before.in_use_bytes) / max(1, round_.ended_streams)


def resident_per_stream(round_: Round) -> float:
    """Resident bytes that stay per stream that ended; below zero where the round freed memory."""
    return (round_.after.rss_bytes - round_.before.rss_bytes) / max(1, round_.ended_streams)


def kernel_queues(round_: Round, transient_seconds: float) -> tuple[int, bool]:
    """The most bytes in the kernel's send queues at any reading, and whether they were still filling at the end."""
    sizes = [reading.kernel_bytes for reading in in_window(round_.readings, round_.start, transient_seconds)]
    if len(sizes) < 3:
        return max(sizes, default=0), False
    third = len(sizes) // 3
    first, last = median(sizes[:third]), median(sizes[-third:])
    return max(sizes), last > first * _STILL_FILLING


def peak_per_stream(round_: Round) -> float:
    """The largest in-use growth at any reading, in bytes, divided by the concurrent streams."""
    return _peak(round_) / round_.open_streams


def load_per_stream(light: Round, heavy: Round) -> float:
    """Bytes that each stream of `heavy` beyond those of `light` adds. Raises ValueError where `heavy` has no more streams."""
    further = heavy.open_streams - light.open_streams
    if further <= 0:
        raise ValueError(f"the heavy load has {heavy.open_streams} streams, the light one {light.open_streams}")
    return (_sustained(heavy) - _sustained(light)) / further


def held_per_stream(round_: Round) -> float:
    """Bytes that each client's stream holds at the last reading of the round."""
    last = round_.readings[-1] if round_.readings else round_.before
    return (last.in_use_bytes - round_.before.in_use_bytes) / round_.open_streams


def _sustained(round_: Round) -> int:
    """The in-use growth, in bytes, that a quarter of the readings reach: robust against a single high reading."""
    levels = sorted((reading.in_use_bytes for reading in round_.readings), reverse=True)
    return (levels[(len(levels) - 1) // 4] if levels else round_.before.in_use_bytes) - round_.before.in_use_bytes


def _peak(round_: Round) -> int:
    peak = max((reading.in_use_bytes for reading in round_.readings), default=round_.before.in_use_bytes)
    return peak - round_.before.in_use_bytes
