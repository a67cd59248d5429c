"""The three figures of a round, from readings whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.growth import (
    Reading,
    Round,
    growth_per_chunk,
    held_per_stream,
    kernel_queues,
    load_per_stream,
    peak_per_stream,
    remains_per_stream,
    resident_per_stream,
    slope,
)


def reading(time: float, in_use: float) -> Reading:
    return Reading(time=time, in_use_bytes=int(in_use), rss_bytes=0, tasks=None, fds=0)


def a_round(per_second: float, *, jump: float = 0, after: int = 1000) -> Round:
    """Four streams; `jump` bytes fill within the first second, from then on memory grows by `per_second`."""
    times = [0.1 * step for step in range(1, 30)]
    readings = tuple(reading(50 + t, 1000 + (jump * min(t, 1)) + per_second * max(0, t - 1)) for t in times)
    return Round(50, 4, 4, reading(49, 1000), readings, reading(54, after))


def test_growth_is_what_comes_after_the_transient() -> None:
    # 4 streams, 200 chunks a second, each chunk of each stream stays with 2,000 bytes.
    found = growth_per_chunk(a_round(4 * 200 * 2000, jump=5e6), chunks_per_second=200, transient_seconds=1.0)
    assert found == pytest.approx(2000, rel=1e-3)


def test_a_buffer_that_fills_and_stays_is_no_growth() -> None:
    assert growth_per_chunk(a_round(0, jump=5e6), 200, 1.0) == pytest.approx(0, abs=1e-6)


def test_what_remains_and_the_peak_are_for_one_stream() -> None:
    one = a_round(0, jump=40_000, after=9000)
    assert remains_per_stream(one) == 2000
    assert peak_per_stream(one) == 10_000


def test_what_ended_streams_leave_is_no_growth_of_those_that_are_open() -> None:
    """Four short streams at a time, forty ended ones a second, 5,000 bytes of each stay: a leak, and nothing grows."""
    times = [0.1 * step for step in range(1, 41)]
    readings = tuple(replace(reading(50 + t, 1000 + 5000 * 40 * t), ended=round(40 * t)) for t in times)
    one = Round(50, 4, 160, reading(49, 1000), readings, reading(55, 1000 + 160 * 5000))
    assert remains_per_stream(one) == 5000
    assert growth_per_chunk(one, 1, 1.0) == pytest.approx(0, abs=100)
    # Of what open streams gain beside it nothing is taken away.
    both = replace(
        one, readings=tuple(replace(r, in_use_bytes=r.in_use_bytes + round(8000 * (r.time - 50))) for r in readings)
    )
    assert growth_per_chunk(both, 1, 1.0) == pytest.approx(2000, rel=0.05)


def test_resident_memory_stays_beside_bytes_in_use() -> None:
    before, after = replace(reading(49, 1000), rss_bytes=10_000), replace(reading(54, 1000), rss_bytes=50_000)
    one = Round(50, 4, 8, before, (), after)
    assert (remains_per_stream(one), resident_per_stream(one)) == (0, 5000)


@pytest.mark.parametrize(("per_second", "most", "filling"), [(1e6, 4e6, True), (1e7, 4e6, False), (0, 0, False)])
def test_queues_of_the_kernel_are_full_or_still_filling(per_second: float, most: float, filling: bool) -> None:
    """They hold four megabytes; the readings that are judged begin after one second."""
    times = [0.1 * step for step in range(1, 41)]
    readings = tuple(replace(reading(50 + t, 0), kernel_bytes=round(min(per_second * t, 4e6))) for t in times)
    found = kernel_queues(Round(50, 4, 4, reading(49, 0), readings, reading(55, 0)), 1.0)
    assert found == (pytest.approx(most, rel=0.01), filling)


def a_peak(streams: int, peak: float, last: float) -> Round:
    readings = (reading(50.1, 1000 + peak), reading(50.2, 1000 + last))
    return Round(50, streams, streams, reading(49, 1000), readings, reading(54, 1000))


def test_one_gulp_is_no_growth_and_no_level() -> None:
    """A service that got no core takes at once what has come meanwhile; here in the last reading, where it weighs most."""
    calm = a_round(4 * 200 * 10)
    gulp = replace(calm, readings=(*calm.readings[:-1], reading(calm.readings[-1].time, 9e6)))
    assert growth_per_chunk(gulp, 200, 1.0) == pytest.approx(10, rel=0.1)
    assert load_per_stream(calm, replace(gulp, open_streams=24)) == pytest.approx(0, abs=50)
    assert peak_per_stream(gulp) > 2e6, "it is shown all the same"


def test_load_is_what_further_streams_add_to_the_peak() -> None:
    assert load_per_stream(a_peak(4, 4000, 0), a_peak(24, 64_000, 0)) == 3000
    assert load_per_stream(a_peak(4, 4000, 0), a_peak(24, 4000, 0)) == 0
    with pytest.raises(ValueError, match="the heavy load has 4 streams, the light one 4"):
        load_per_stream(a_peak(4, 1, 0), a_peak(4, 1, 0))


def test_held_is_what_is_there_at_the_last_reading_not_at_the_worst() -> None:
    assert held_per_stream(a_peak(8, 80_000, 800)) == 100


@given(st.floats(-1e4, 1e4), st.floats(-1e6, 1e6), st.lists(st.integers(0, 1000), min_size=2, unique=True))
def test_the_slope_of_a_line_is_its_slope(gradient: float, offset: float, places: list[int]) -> None:
    assert slope([(x, offset + gradient * x) for x in places]) == pytest.approx(gradient, abs=1e-3)


def test_one_point_or_one_place_has_no_slope() -> None:
    with pytest.raises(ValueError, match="two points"):
        slope([(1, 1)])
    with pytest.raises(ValueError, match="different x"):
        slope([(1, 1), (1, 2)])
