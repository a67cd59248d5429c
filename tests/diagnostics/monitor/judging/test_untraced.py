"""A tracer's step is no growth of the service, and the service's own growth is seen through it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.trend import Points, trend
from diagnostics.monitor.judging.untraced import without_tracers

MIB = 1 << 20


def recorded(slope: float, step: float, *, seconds: int = 180, begin: int = 90, end: int = 110) -> Points:
    """Readings a second apart; in the window 40 MiB more, behind it `step` more than before."""
    return [
        (1000.0 + at, 60 * MIB + slope * at + (40 * MIB if begin <= at <= end else step if at > end else 0.0))
        for at in range(seconds)
    ]


def test_what_memray_leaves_behind_is_no_growth() -> None:
    """With the window that it had asked for itself, the verdict went from the right one to "grows by 19.54 MiB"."""
    points = recorded(0.0, 13 * MIB)
    assert (trend(points).slope or 0.0) > 50_000
    series, since = without_tracers({"rss_bytes": points}, 1000.0, [(1090.0, 1110.0)])
    assert trend(series["rss_bytes"], since=since).slope == 0.0
    assert series["rss_bytes"][-1] == points[-1]  # what is there now stays true
    assert since == 1020.0


def test_growth_is_seen_through_a_window() -> None:
    series, since = without_tracers({"rss_bytes": recorded(80_000.0, 13 * MIB)}, 1000.0, [(1090.0, 1110.0)])
    found = trend(series["rss_bytes"], since=since)
    assert found.growing
    assert found.slope == pytest.approx(80_000.0, rel=0.05)


def test_while_the_window_is_open_what_was_read_before_it_counts() -> None:
    series, since = without_tracers({"rss_bytes": recorded(80_000.0, 0.0, seconds=105)}, 1000.0, [(1090.0, math.inf)])
    assert (series["rss_bytes"][-1][0], since) == (1089.0, 1000.0)


def test_what_is_there_at_the_time_is_moved_in_time_only() -> None:
    streams = [(1000.0 + at, 5.0 if at < 100 else 9.0) for at in range(180)]
    series, _ = without_tracers({"open_streams": streams, "tasks": streams}, 1000.0, [(1090.0, 1110.0)])
    assert {value for _, value in series["open_streams"]} == {5.0, 9.0}
    assert series["tasks"] == series["open_streams"]


@given(
    st.lists(st.floats(0, 2e9), min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=4),
)
def test_the_last_reading_stands_and_time_goes_forward(values: list[float], windows: list[tuple[int, int]]) -> None:
    apart: list[tuple[float, float]] = []
    for begin, length in sorted(windows):
        if not apart or begin > apart[-1][1]:
            apart.append((begin, begin + length))
    points = [(float(at), value) for at, value in enumerate(values)]
    series, since = without_tracers({"rss_bytes": points}, -math.inf, apart)
    left = series["rss_bytes"]
    assert since == -math.inf
    assert [time for time, _ in left] == sorted(time for time, _ in left)
    outside = [point for point in points if not any(begin <= point[0] <= end for begin, end in apart)]
    assert len(left) == len(outside)
    if outside and not any(begin > outside[-1][0] for begin, _ in apart):
        assert left[-1][1] == outside[-1][1]
