"""When a relay counts as gone: after a lease's time without a beat, and never for a lease that Redis has lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.resume.redis_log import LEASE_SECONDS, UNKNOWN_SECONDS, Heard

LOOKS = st.lists(st.floats(0.05, 2.0), min_size=1, max_size=60)


@given(LOOKS)
def test_a_relay_that_was_killed_is_gone_a_lease_after_its_last_beat(pauses: list[float]) -> None:
    heard, now = Heard(), 0.0
    for pause in pauses:
        left = LEASE_SECONDS - now
        assert heard.silent("killed", left if left > 0 else None, now) == pytest.approx(now)
        now += pause


@given(LOOKS, st.lists(st.booleans(), min_size=60, max_size=60))
def test_a_relay_that_beats_is_not_gone_however_often_redis_loses_its_lease(
    pauses: list[float], lost: list[bool]
) -> None:
    """It beats every second, and has a lease until Redis loses it: at least at every second look here."""
    heard, now, before = Heard(), 0.0, False
    for pause, is_lost in zip(pauses, lost, strict=False):
        is_lost = is_lost and not before
        assert heard.silent("lives", None if is_lost else LEASE_SECONDS - 0.5, now) < LEASE_SECONDS
        now, before = now + pause, is_lost


@given(st.floats(0.05, 2.0))
def test_a_relay_without_a_lease_has_some_beats_to_say_that_it_lives(pause: float) -> None:
    heard, now = Heard(), 1000.0
    while now - 1000.0 < UNKNOWN_SECONDS - 0.01:
        assert heard.silent("unknown", None, now) < LEASE_SECONDS
        now += pause
    assert heard.silent("unknown", None, 1000.0 + UNKNOWN_SECONDS + 0.01) > LEASE_SECONDS


def test_what_was_seen_long_ago_says_nothing_of_now() -> None:
    """Redis may have lost the lease just now."""
    heard = Heard()
    heard.silent("relay", LEASE_SECONDS, 0.0)
    assert heard.silent("relay", None, 3600.0) < LEASE_SECONDS


def test_relays_that_nobody_looks_at_are_forgotten() -> None:
    heard = Heard()
    for number in range(1000):
        heard.silent(f"relay-{number}", LEASE_SECONDS, float(number))
    assert len(heard._relays) <= UNKNOWN_SECONDS + 1
