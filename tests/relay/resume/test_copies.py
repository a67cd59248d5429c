"""What is copied of the logs, and copied again where a copy did not come true. Any order of events, copies and losses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.resume.copies import BETWEEN, STREAM_BYTES, Copied, Copies
from relay.resume.log import StreamLog

STREAMS = 3
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "end", "drop", "copy", "copy", "refused", "answer lost", "lost"]),
        st.integers(0, STREAMS - 1),
    ),
    max_size=60,
)


class Store:
    """What append.lua does, for one stream each: the events by number, and how the stream ended."""

    def __init__(self) -> None:
        self.events: dict[str, dict[int, bytes]] = {}
        self.over: dict[str, str] = {}

    def copy(self, part: Copied) -> int:
        """The number of the newest event that is stored."""
        kept = self.events.setdefault(part.stream, {})
        last = max(kept, default=part.first - 1)
        if part.number > last + 1 and part.number > part.first:
            return last
        if part.number <= last < part.last:
            return last
        if last < part.last:
            kept |= dict(enumerate(part.events.split(BETWEEN), part.number))
        if part.over:
            self.over[part.stream] = part.over
        return max(kept, default=part.first - 1)


def copy(copies: Copies, store: Store, *, refused: bool = False, answer_lost: bool = False) -> None:
    """One round trip, as the store of several processes does it (redis.py)."""
    logs, parts = copies.take()
    for log, part in zip(logs, parts, strict=True):
        last = part.number - 1 if refused else store.copy(part)
        if refused or answer_lost:
            copies.copied_up_to(log, part.number - 1)
        elif last != part.last:
            copies.copied_up_to(log, last)


@given(STEPS)
def test_the_store_has_every_event_in_the_end_whatever_went_wrong_before(steps: list[tuple[str, int]]) -> None:
    copies, store = Copies(), Store()
    logs = [StreamLog(f"s{number}", "") for number in range(STREAMS)]
    for step, number in steps:
        log = logs[number]
        if step == "append" and not log.is_over:
            log.append((b"event %d of %d" % (log.last + 1, number),))
            copies.is_behind(log)
        elif step == "end" and not log.is_over:
            log.end(failed=False)
            copies.is_behind(log)
        elif step == "drop" and log:
            log.forget_oldest()
            copies.is_behind(log)
        elif step in ("copy", "refused", "answer lost"):
            copy(copies, store, refused=step == "refused", answer_lost=step == "answer lost")
        elif step == "lost":
            store.events.clear()
            store.over.clear()
            copies.lost()
    rounds = 0
    while copies.behind:
        copy(copies, store)
        rounds += 1
        assert rounds < 5, "each log needs one round to be told what is missing, and one to bring it"
    for log in logs:
        stored = store.events.get(log.id, {})
        assert [stored[number] for number in range(log.first, log.last + 1)] == log.read(log.first - 1, 1 << 30)
        if log.is_over and (log or log.id in store.events):
            assert store.over[log.id] == "ok"


def test_a_log_that_got_an_event_during_the_round_trip_is_behind_after_it() -> None:
    copies, log = Copies(), StreamLog("s", "")
    log.append((b"one",))
    copies.is_behind(log)
    assert [part.events for part in copies.take()[1]] == [b"one"]
    assert not copies.behind
    log.append((b"two", b"three"))
    copies.is_behind(log)
    ((_,), (part,)) = copies.take()
    assert (part.number, part.last, part.events) == (2, 3, b"two" + BETWEEN + b"three")


def test_a_large_log_is_copied_in_several_round_trips_and_others_come_between() -> None:
    copies, large, small = Copies(), StreamLog("large", ""), StreamLog("small", "")
    large.append([b"e" * 1000] * 1000)
    small.append((b"one",))
    for log in (large, small):
        copies.is_behind(log)
    sizes = []
    while copies.behind:
        sizes.append({part.stream: len(part.events) for part in copies.take()[1]})
    assert "small" in sizes[0]
    assert all(size["large"] <= STREAM_BYTES for size in sizes)
    assert sum(size["large"] for size in sizes) >= 1_000_000


def test_nothing_more_is_copied_of_a_stream_that_others_have_ended() -> None:
    copies, log = Copies(), StreamLog("s", "")
    log.append((b"one",))
    copies.is_behind(log)
    copies.take()
    copies.copied_up_to(log, -1)
    log.append((b"two",))
    copies.is_behind(log)
    assert not copies.behind
