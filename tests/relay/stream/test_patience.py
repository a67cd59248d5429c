"""The time-outs of a stream, from its counts: each runs for its own reason, never early, and late by one sweep at most."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.stream.patience import Limits, Patience, Progress
from relay.stream.sweep import MAX_SECONDS, MIN_SECONDS, interval_seconds

LIMITS = Limits(read=10, write=5, idle=20, total=100, heartbeat=3)
NEVER = 1e9


def still(**changes: int | bool | None) -> Progress:
    counts: dict[str, int | bool | None] = {
        "bytes_in": 1, "events_in": 1, "bytes_out": 1, "reading": True, "unsent": None,
    }  # fmt: skip
    return Progress(**{**counts, **changes})  # type: ignore[arg-type]


def first(patience: Patience, verdict: str, progress: Progress, until: int = 200) -> int | None:
    """The second at which a stream that stands still gets this verdict."""
    return next((now for now in range(1, until) if patience.look(now, progress) == verdict), None)


@pytest.mark.parametrize(
    ("verdict", "progress", "when"),
    [
        pytest.param("read", still(), 1 + 10, id="a silent upstream"),
        pytest.param("heartbeat", still(), 1 + 3, id="a silent upstream is bridged first"),
        pytest.param("write", still(unsent=7), 1 + 5, id="a client that takes nothing"),
        pytest.param("total", still(unsent=None), 100, id="a stream that is too old"),
        pytest.param("read", still(reading=False), None, id="an upstream that is still being asked has its own clock"),
        pytest.param("heartbeat", still(reading=False), 1 + 3, id="but its client is kept"),
        pytest.param("read", still(unsent=7), None, id="an upstream is not silent while we do not read"),
        pytest.param("idle", still(unsent=7), None, id="nor without events"),
    ],
)
def test_each_clock_runs_for_its_own_reason(verdict: str, progress: Progress, when: int | None) -> None:
    patience = Patience(LIMITS, 0)
    if verdict == "total":
        patience = Patience(Limits(read=NEVER, write=NEVER, total=100), 0)
    assert first(patience, verdict, progress) == when


def test_comments_are_bytes_but_no_events() -> None:
    patience = Patience(LIMITS, 0)
    verdicts = [patience.look(now, still(bytes_in=now, events_in=0)) for now in range(1, 21)]
    assert verdicts == [None] * 19 + ["idle"]


def test_a_client_that_takes_little_is_slow_but_not_gone() -> None:
    patience = Patience(LIMITS, 0)
    assert not any(patience.look(now, still(unsent=1000 - now // 4)) for now in range(1, 100))
    assert not any(patience.look(now, still(unsent=7, bytes_out=now // 4)) for now in range(99, 100))


def test_heartbeats_repeat_and_zero_switches_off() -> None:
    patience = Patience(Limits(read=NEVER, write=NEVER, heartbeat=3), 0)
    beats = [now for now in range(1, 14) if patience.look(now, still()) == "heartbeat"]
    assert beats == [4, 7, 10, 13]
    never = Patience(Limits(read=NEVER, write=NEVER), 0)
    assert not any(never.look(now, still()) for now in range(1, 1000))


@given(st.lists(st.tuples(st.floats(0.01, 3), st.booleans()), min_size=1, max_size=60), st.floats(0.5, 20))
def test_silence_is_never_judged_early_and_late_by_one_sweep_at_most(
    steps: list[tuple[float, bool]], limit: float
) -> None:
    patience = Patience(Limits(read=limit, write=NEVER), 0.0)
    now = last = 0.0
    count = 0
    for gap, came in steps:
        before, now = now, now + gap
        if came:
            count += 1
            last = before  # at some moment since the last look: this is the earliest
        verdict = patience.look(now, still(bytes_in=count))
        if verdict == "read":
            assert now - last >= limit
            return
        assert came or before - last < limit + max(step for step, _ in steps)


# What came (nothing, a comment, an event), whether it was written, what waits for the client, and so many looks in a row.
LOOKS = st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from([None, 5, 7]), st.integers(1, 8))


@settings(max_examples=500)
@given(st.lists(LOOKS, max_size=20))
def test_where_events_have_moved_it_is_enough_to_say_so(looks: list[tuple[int, bool, int | None, int]]) -> None:
    limits = Limits(read=4, write=3, idle=5, total=60, heartbeat=2)
    asked, told = Patience(limits, 0), Patience(limits, 0)
    bytes_in = events_in = bytes_out = 0
    each = [look for *look, times in looks for _ in range(times)]
    for now, (came, written, unsent) in enumerate(each, 1):
        bytes_in += came > 0
        events_in += came > 1
        bytes_out += written
        progress = Progress(bytes_in, events_in, bytes_out, True, unsent)
        verdict = asked.look(now, progress)
        moved = came > 1 and written
        verdict_told = told.moved(now, bytes_in, events_in) if moved else told.look(now, progress)
        if verdict == "write" != verdict_told:  # late by one look, and never early
            assert told.look(now + 1, progress) in ("write", "total")
        else:
            assert verdict_told == verdict
        if verdict == "write":
            return


def test_the_sweep_looks_a_few_times_within_the_shortest_time_out() -> None:
    assert interval_seconds(Limits(read=60, write=30)) == MAX_SECONDS
    assert interval_seconds(Limits(read=60, write=2, idle=0)) == 0.25
    assert interval_seconds(Limits(read=60, write=30, heartbeat=0.001)) == MIN_SECONDS
