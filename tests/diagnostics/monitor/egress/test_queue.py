"""The queue of uploads: its order, its bound, its tries, the quota, and that it survives being written down."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.monitor.egress.queue import (
    ENDED,
    INCIDENT,
    ON_REQUEST,
    VERDICT,
    Queue,
    Quota,
    Upload,
    backoff,
    urgency_of,
)

DAY = 86_400.0


def upload(number: int, urgency: int = ON_REQUEST, size: int = 10) -> Upload:
    return Upload(f"20261129T131400-{number:06d}-objects", "capture", "0", urgency, float(number), size)


def order(queue: Queue) -> list[int]:
    return [int(each.created) for each in queue.waiting()]


def test_what_nobody_can_take_again_goes_first_and_then_the_oldest() -> None:
    queue = Queue(10, 3)
    for number, by in enumerate(["a request", "the verdict", "rule limit-near", "rule limit-in-sight", "a request"]):
        assert queue.add(upload(number, urgency_of(by))) is None
    assert order(queue) == [2, 3, 1, 0, 4]
    assert [urgency_of(by) for by in ("rule x", "the verdict", "", "rules")] == [
        INCIDENT,
        VERDICT,
        ON_REQUEST,
        ON_REQUEST,
    ]


def test_what_waits_is_bounded_and_the_most_urgent_stay() -> None:
    queue = Queue(2, 3)
    queue.add(upload(1))
    queue.add(upload(2))
    dropped = queue.add(upload(3, INCIDENT))
    assert dropped is not None
    assert (dropped.created, dropped.state) == (1, "dropped")
    dropped = queue.add(upload(4, INCIDENT))
    assert dropped is not None
    assert dropped.created == 2
    dropped = queue.add(upload(5))  # less urgent than all that wait: it is the one that goes
    assert dropped is not None
    assert (dropped.created, dropped.state) == (5, "dropped")
    assert order(queue) == [3, 4]


def test_a_try_that_failed_is_due_later_and_the_last_one_is_the_end() -> None:
    queue = Queue(10, 3)
    one = upload(1)
    queue.add(one)
    assert queue.next(100.0, 1e9) is one
    assert queue.failed(one, 100.0, "refused", 0.5) is False
    assert (one.due, one.tries, one.error) == (105.0, 1, "refused")
    assert queue.next(104.9, 1e9) is None
    assert queue.next(105.0, 1e9) is one
    assert queue.failed(one, 105.0, "refused", 0.5) is False
    assert one.due == 115.0
    assert queue.failed(one, 115.0, "refused", 0.5) is True
    assert (one.state, queue.next(1e9, 1e9), queue.waiting()) == ("failed", None, [])


def test_one_that_waits_for_its_next_try_holds_up_no_other() -> None:
    queue = Queue(10, 3)
    first, second = upload(1, INCIDENT), upload(2)
    queue.add(first)
    queue.add(second)
    queue.failed(first, 100.0, "refused", 0.5)
    assert queue.next(100.0, 1e9) is second


@given(st.integers(1, 100), st.floats(0, 1))
def test_tries_are_seconds_apart_and_never_more_than_an_hour_and_a_quarter(tries: int, chance: float) -> None:
    assert 3.75 <= backoff(tries, chance) <= 4500
    assert backoff(tries, 0) <= backoff(tries, chance) <= backoff(tries, 1)


def test_a_day_has_its_bytes_and_the_next_one_has_them_again() -> None:
    quota = Quota(100)
    assert (quota.left(0), quota.fits(100), quota.fits(101)) == (100, True, False)
    quota.spend(10.0, 70)
    assert quota.left(DAY - 1) == 30
    assert quota.left(DAY) == 100
    assert Quota(0).left(0) == float("inf")
    queue = Queue(10, 3)
    queue.add(upload(1, INCIDENT, size=50))
    queue.add(upload(2, size=20))
    fits = queue.next(0, 30)
    assert fits is not None
    assert fits.created == 2  # what is left of the day is not left unused


@given(st.lists(st.tuples(st.sampled_from(["add", "try", "fail"]), st.integers(0, 2), st.integers(0, 40)), max_size=60))
def test_every_upload_is_in_one_state_and_survives_being_written_down(steps: list[tuple[str, int, int]]) -> None:
    queue, now, added = Queue(5, 2), 1000.0, set()
    for number, (step, urgency, size) in enumerate(steps):
        now += size
        due = queue.next(now, 1e9)
        if step == "add":
            one = upload(number, urgency, size)
            queue.add(one)
            added.add(one.id)
        elif step == "try" and due is not None:
            due.state = "sent"
        elif due is not None:
            queue.failed(due, now, "refused", 0.5)
        assert len(queue.waiting()) <= 5
        again = Queue(5, 2)
        again.restore(json.loads(json.dumps(queue.to_json())))
        assert again.to_json() == queue.to_json()
        assert [each.id for each in again.waiting()] == [each.id for each in queue.waiting()]
    states = {each["id"]: each["state"] for each in queue.to_json()}
    assert states.keys() == added
    assert set(states.values()) <= {"waiting", *ENDED}


@pytest.mark.parametrize(
    "damage",
    [{"id": 7}, {"tries": "1"}, {"tries": True}, {"due": None}, {"paths": "x"}, {"more": 1}, {"end": []}],
    ids=str,
)
def test_what_another_version_wrote_is_not_half_understood(damage: dict[str, Any]) -> None:
    queue = Queue(5, 2)
    queue.add(upload(1))
    (kept,) = queue.to_json()
    with pytest.raises(ValueError, match="upload"):
        Queue(5, 2).restore([{**kept, **damage}])
    with pytest.raises(ValueError, match="upload"):
        Queue(5, 2).restore([7])  # type: ignore[list-item]  # as a damaged file may have it


def test_what_has_ended_is_forgotten_after_some_hundreds() -> None:
    queue = Queue(5, 1)
    for number in range(400):
        one = upload(number)
        queue.add(one)
        one.state = "sent"
    assert len(queue.to_json()) <= 302
    assert queue.get(upload(399).id) is not None
    assert queue.get(upload(1).id) is None
