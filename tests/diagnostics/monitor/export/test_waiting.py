"""The queue of an export: bounded whatever comes, and what goes is the oldest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diagnostics.monitor.export.payload import Payload
from diagnostics.monitor.export.waiting import Waiting

SIZES = st.integers(0, 12)


@given(st.integers(1, 5), st.integers(1, 20), st.lists(SIZES | st.none(), max_size=40))
def test_what_waits_is_bounded_and_the_newest_stays(most: int, most_bytes: int, steps: list[int | None]) -> None:
    """A step of None: the oldest is sent; a number: so many bytes come."""
    waiting = Waiting(most, most_bytes)
    expected: list[Payload] = []
    added = gone = sent = 0
    for step in steps:
        if step is None:
            oldest = waiting.oldest
            assert oldest is (expected[0] if expected else None)
            if oldest is not None:
                assert waiting.done(oldest)
                expected.pop(0)
                sent += 1
            continue
        payload = Payload("0", b"x" * step, "application/octet-stream")
        added += 1
        dropped = waiting.add(payload)
        gone += len(dropped)
        # The oldest go, and no more of them than has to; one that could never have room is not taken at all.
        if step > most_bytes:
            assert dropped == [payload]
        else:
            expected.append(payload)
            assert [id(each) for each in dropped] == [id(each) for each in expected[: len(dropped)]]
            if dropped:
                with_last = expected[len(dropped) - 1 :]
                assert len(with_last) > most or sum(len(each.body) for each in with_last) > most_bytes
            del expected[: len(dropped)]
        assert len(waiting) == len(expected) <= most
        assert waiting.held_bytes == sum(len(each.body) for each in expected) <= most_bytes
    assert added == gone + sent + len(waiting)


def test_what_had_to_go_while_it_was_sent_takes_nothing_else_with_it() -> None:
    waiting = Waiting(1, 100)
    first, second = Payload("0", b"1", "a/b"), Payload("0", b"2", "a/b")
    waiting.add(first)
    assert waiting.add(second) == [first]
    assert not waiting.done(first)
    assert waiting.oldest is second
