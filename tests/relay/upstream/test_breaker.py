"""The circuit breaker as a state machine: which requests pass, which is the probe, and that it never stays open for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.upstream.breaker import Breaker


def test_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = Breaker(threshold=3, open_seconds=10)
    for _ in range(2):
        breaker.failed(0)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(0)
    assert breaker.state == "closed"
    breaker.failed(0)
    assert breaker.state == "open"
    assert not breaker.allow(9.9)
    assert breaker.wait(4) == 6


def test_one_request_decides_after_the_pause() -> None:
    breaker = Breaker(threshold=1, open_seconds=10)
    breaker.failed(0)
    assert [breaker.allow(10) for _ in range(3)] == [True, False, False]
    breaker.failed(10)
    assert breaker.state == "open"
    assert not breaker.allow(19)
    assert breaker.allow(20)
    breaker.succeeded()
    assert breaker.allow(20)


def test_a_probe_whose_client_left_is_made_up_for_at_once() -> None:
    breaker = Breaker(threshold=1, open_seconds=10)
    breaker.failed(0)
    assert breaker.allow(10)
    breaker.abandoned(10.5)
    assert breaker.allow(10.5)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["succeeded", "failed", "abandoned"])), max_size=80))
def test_it_never_stays_shut(steps: list[tuple[int, str]]) -> None:
    breaker = Breaker(threshold=2, open_seconds=3)
    now = 0
    for gap, result in steps:
        now += gap
        if breaker.allow(now):
            breaker.succeeded() if result == "succeeded" else getattr(breaker, result)(now)
        assert 0 <= breaker.wait(now) <= 3
    assert breaker.allow(now + 3)
