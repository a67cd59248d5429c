"""What a capture will cost: the figures follow the load, and what would be an outage is refused for the right reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.cost import GIB, Load, Method, estimate, likely_slowdown, slowdown, too_costly, warning

TRACEMALLOC = Method(tracer="tracemalloc", seconds=5, frames=5, census=False)
MEMRAY = Method(tracer="memray", seconds=5, forks=False)
CENSUS = Method()

loads = st.builds(
    Load,
    rss_bytes=st.integers(0, 64 * GIB),
    live_blocks=st.none() | st.integers(0, 10**9),
    cpu_share=st.none() | st.floats(0, 8),
)
methods = st.builds(
    Method,
    tracer=st.sampled_from(["tracemalloc", "memray", None]),
    seconds=st.floats(0.1, 300),
    frames=st.integers(1, 25),
    aggregated=st.booleans(),
    python_allocators=st.booleans(),
    native=st.booleans(),
    forks=st.booleans(),
    census=st.booleans(),
)


@given(load=loads, method=methods)
def test_nothing_is_free_and_more_service_never_costs_less(load: Load, method: Method) -> None:
    cost = estimate(method, load)
    assert cost.slowdown >= 1
    assert cost.stall_ms == pytest.approx(cost.fork_ms + cost.ending_ms, abs=0.15)
    assert cost.disk_bytes > 0
    blocks = None if load.live_blocks is None else 2 * load.live_blocks
    larger = estimate(method, Load(2 * load.rss_bytes, blocks, load.cpu_share))
    assert larger.stall_ms >= cost.stall_ms
    assert larger.memory_bytes >= cost.memory_bytes


def test_a_forked_reading_stalls_by_resident_memory_and_a_window_by_what_it_traced() -> None:
    # The measured points: 20, 40 and 82 ms of fork at 1, 2 and 4 GiB.
    for gib, measured in ((1, 20), (2, 40), (4, 82)):
        assert estimate(CENSUS, Load(gib * GIB)).stall_ms == pytest.approx(measured, rel=0.15)
    million = Load(0, live_blocks=1_000_000)
    assert estimate(replace(TRACEMALLOC, forks=False), million).ending_ms == pytest.approx(41, rel=0.05)
    assert estimate(TRACEMALLOC, million).ending_ms > 80  # the pages that the child shares are copied or faulted in
    assert estimate(MEMRAY, million).fork_ms == 0
    # A window of a tenth of a second has no time to trace five million blocks.
    short = Method(tracer="memray", seconds=0.1, forks=False)
    assert estimate(short, Load(0, live_blocks=5_000_000)).ending_ms < estimate(MEMRAY, million).ending_ms


def test_slowdown_grows_with_what_is_looked_at() -> None:
    frames = [slowdown(Method(tracer="tracemalloc", frames=count)) for count in (1, 3, 5, 10, 25)]
    assert frames == sorted(frames)
    assert (frames[0], frames[2], frames[-1]) == (4.9, 16.7, 38.0)
    full = Method(tracer="memray", aggregated=False)
    assert slowdown(MEMRAY) < slowdown(full) < slowdown(Method(tracer="memray", native=True))
    assert slowdown(CENSUS) == 1


@pytest.mark.parametrize(
    ("method", "share", "headroom", "says"),
    [
        (MEMRAY, 0.1, GIB, None),
        (MEMRAY, 0.25, GIB, None),
        (TRACEMALLOC, 0.18, GIB, None),
        (
            MEMRAY,
            0.5,
            GIB,
            "uses 50 % of a core and would likely need 114 % while it is traced (2.29 times, at worst 5.3)",
        ),
        (CENSUS, 0.95, 2 * GIB, None),
        (CENSUS, 0.1, GIB // 2, "512 MiB are left"),
        (TRACEMALLOC, None, None, None),
    ],
)
def test_it_is_refused_when_it_would_saturate_the_core_or_not_fit(
    method: Method, share: float | None, headroom: int | None, says: str | None
) -> None:
    reason = too_costly(estimate(method, Load(GIB, 100_000, share)), headroom)
    assert reason is None if says is None else says in (reason or "")


def test_what_is_borne_most_likely_is_taken_with_a_warning_of_the_worst() -> None:
    calm, busy, busiest = (estimate(MEMRAY, Load(GIB, 100_000, share)) for share in (0.1, 0.3, 0.5))
    assert warning(calm) is None
    assert "would need 159 % of a core" in (warning(busy) or "")
    assert warning(busiest) is None  # it is refused
    assert [cost.would_saturate for cost in (calm, busy, busiest)] == [False, False, True]


def test_a_service_has_no_more_of_a_core_than_its_quota_leaves() -> None:
    alone = estimate(MEMRAY, Load(GIB, 100_000, 0.2))
    limited = estimate(MEMRAY, Load(GIB, 100_000, 0.2, core_left=0.4))
    assert not alone.would_saturate
    assert "more than 90 % of the 40 % that its quota" in (too_costly(limited, None) or "")


def test_a_service_without_rest_is_refused_a_tracer_whatever_it_gets_of_a_core() -> None:
    # Where others have the cores, one that would use a whole core gets a tenth of one.
    starved = estimate(MEMRAY, Load(GIB, 100_000, 0.1, busy_share=0.99))
    assert "has no rest" in (too_costly(starved, None) or "")
    assert "with 10 % of a core" in (too_costly(starved, None) or "")
    assert too_costly(estimate(MEMRAY, Load(GIB, 100_000, 0.1, busy_share=0.8)), None) is None
    assert too_costly(estimate(CENSUS, Load(GIB, 100_000, 0.1, busy_share=0.99)), None) is None


def test_what_others_use_now_is_warned_of_and_refuses_nothing() -> None:
    beside = estimate(MEMRAY, Load(GIB, 100_000, 0.1, core_free=0.15))
    assert too_costly(beside, None) is None
    assert "likely need 23 % of a core while it is traced, and others leave it 15 %" in (warning(beside) or "")


@given(method=methods)
def test_what_is_likely_lies_between_nothing_and_the_worst(method: Method) -> None:
    assert 1 <= likely_slowdown(method) <= slowdown(method)


def test_how_long_a_reading_takes_is_said_and_follows_objects_and_the_machine() -> None:
    quiet, short = Load(GIB, 2_000_000), Load(GIB, 2_000_000, contention=4.0)
    assert estimate(CENSUS, quiet).reading_seconds == pytest.approx(4.6)
    assert estimate(CENSUS, short).reading_seconds == pytest.approx(4.6 * 7, abs=0.1)
    assert estimate(MEMRAY, quiet).reading_seconds == 0
    assert estimate(Method(census=False), quiet).reading_seconds == 0
