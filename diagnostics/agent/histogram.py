"""A histogram that a hot path can afford: one bisect and one addition.

It answers for two kinds of Prometheus histogram at once. Observations are counted in cells, whose edges are the bounds of a
classic histogram and those of a native one together; a cell lies in one bucket of either. So both are exact, and what makes
them of the cells is done when they are read.

Native buckets grow by the factor 2 ** (1 / 8), which is Prometheus' schema 3: bucket `i` holds what is above
2 ** ((i - 1) / 8) and not above 2 ** (i / 8). They reach six doublings beyond the classic bounds: what is below is in the zero
bucket, what is above in the bucket after the last.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from itertools import compress
from math import ceil, floor, log2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "BYTES",
    "GAP_SECONDS",
    "LAG_SECONDS",
    "LATENCY_SECONDS",
    "SCHEMA",
    "STREAM_SECONDS",
    "Collected",
    "Histogram",
]

# Upper bounds in seconds. The first event of a language model takes 0.1 to 30 s, gaps between events 5 ms to seconds.
LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
GAP_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
# A loop that nothing blocks runs a callback within a millisecond; beside a busy thread it waits up to 5 ms for the GIL.
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STREAM_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
BYTES = (1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0)

# Of native histograms: 2 ** SCHEMA buckets for a doubling, each 9 % wide: a quantile is that near to the truth.
SCHEMA = 3
# How far native buckets reach beyond the classic bounds, below and above.
MARGIN_DOUBLINGS = 6
# Sixteen KiB for each route; sorting and counting so many takes about a tenth of a millisecond.
MAX_COLLECTED = 512


class Scale:
    """Where the cells of a histogram begin and end, and in which buckets each lies. Histograms of equal bounds share one.

    edges     upper edge of each cell but the last, which has none
    classic   cell -> number of its classic bucket
    native    cell -> number of its native bucket; 0: the zero bucket
    first     the index of native bucket N is `first` + N
    zero      the largest value in the zero bucket

    `classic` and `native` are bytes, a tenth of a tuple's memory in each service that is watched: both count at most 255
    buckets, so the last bound is at most 2 ** 19 times the first.
    """

    __slots__ = ("classic", "edges", "first", "native", "zero")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        first = (floor(log2(bounds[0])) - MARGIN_DOUBLINGS) << SCHEMA
        last = (ceil(log2(bounds[-1])) + MARGIN_DOUBLINGS) << SCHEMA
        powers = [2.0 ** (index / (1 << SCHEMA)) for index in range(first, last + 1)]
        self.edges = tuple(sorted({*bounds, *powers}))
        self.classic = bytes((*(bisect_left(bounds, edge) for edge in self.edges), len(bounds)))
        self.native = bytes((*(bisect_left(powers, edge) for edge in self.edges), len(powers)))
        self.first = first
        self.zero = powers[0]


class Histogram:
    """Counts of observations per cell and their sum. `bounds` are those of the classic buckets, positive and ascending.

    One thread observes, any thread may read; a reader is at most one observation behind. Each classic bucket keeps its last
    observation with a trace id as an exemplar (OpenMetrics): (trace id, value, wall-clock time).
    """

    __slots__ = ("bounds", "cells", "edges", "exemplars", "scale", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.scale = _SCALES.get(bounds) or _SCALES.setdefault(bounds, Scale(bounds))
        self.edges = self.scale.edges
        self.cells = [0] * (len(self.edges) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[str, float, float]] = {}

    def observe(self, value: float, trace_id: str | None = None) -> None:
        cell = bisect_left(self.edges, value)
        self.cells[cell] += 1
        self.total += value
        if trace_id is not None:
            self.exemplars[self.scale.classic[cell]] = (trace_id, value, time.time())

    def read(self) -> tuple[list[int], float]:
        """Observations in each cell, and their sum."""
        return list(self.cells), self.total

    @property
    def counts(self) -> list[int]:
        """Observations in each classic bucket, not cumulative; the last are those above all bounds."""
        counts = [0] * (len(self.bounds) + 1)
        for bucket, count in zip(self.scale.classic, self.read()[0], strict=True):
            counts[bucket] += count
        return counts

    def to_json(self) -> dict[str, Any]:
        """`exemplars`: [number of the classic bucket, trace id, value, wall-clock time] of each bucket that has one.

        `native`: `buckets` are [index, count] of those that are not empty, ascending.
        """
        scale, (cells, total) = self.scale, self.read()
        counts = [0] * (len(self.bounds) + 1)
        buckets: dict[int, int] = {}
        for cell in compress(range(len(cells)), cells):  # most are empty
            count, number = cells[cell], scale.native[cell]
            counts[scale.classic[cell]] += count
            buckets[number] = buckets.get(number, 0) + count
        zero_count = buckets.pop(0, 0)
        return {
            "bounds": list(self.bounds),
            "counts": counts,
            "sum": total,
            "exemplars": [[bucket, *exemplar] for bucket, exemplar in list(self.exemplars.items())],
            "native": {
                "schema": SCHEMA,
                "zero_threshold": scale.zero,
                "zero_count": zero_count,
                "buckets": [[scale.first + number, count] for number, count in buckets.items()],
            },
        }


class Collected(Histogram):
    """A histogram for what is observed at each event: observations are collected, and put into cells some hundred at a time.

    Sorted ones are counted cell by cell, which takes a search for each cell and not for each observation. What a reader sees is
    one attribute, `state`, that is replaced as a whole: (observations in each cell, their sum, those that are in no cell yet).
    So a reader in another thread counts each observation once, whenever it comes. `cells` and `total` stay as they are made;
    `read` tells what they would be.
    """

    __slots__ = ("state",)

    def __init__(self, bounds: tuple[float, ...]) -> None:
        super().__init__(bounds)
        self.state: tuple[list[int], float, list[float]] = (self.cells, 0.0, [])

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """`trace_id` is not kept: there are no exemplars of single events."""
        waiting = self.state[2]
        waiting.append(value)
        if len(waiting) >= MAX_COLLECTED:
            self.state = (*self.read(), [])

    def read(self) -> tuple[list[int], float]:
        cells, total, waiting = self.state
        cells, values, edges = list(cells), sorted(waiting), self.edges
        begin, number = 0, len(values)
        while begin < number:
            cell = bisect_left(edges, values[begin])
            end = bisect_right(values, edges[cell], begin) if cell < len(edges) else number
            cells[cell] += end - begin
            begin = end
        return cells, total + sum(values)


_SCALES: dict[tuple[float, ...], Scale] = {}
