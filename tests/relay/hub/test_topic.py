"""A topic against a model: the bounds of its history, the ids to resume from, and the bound of all topics together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.hub.ids import EventId, next_id, parse_id
from relay.hub.topic import EVENT_OVERHEAD_BYTES, History, Topic, TopicEvent, event_of
from relay.hub.topics import Bounds, Topics

ids = st.builds(EventId, st.integers(0, 10**19 - 1), st.integers(0, 10**19 - 1))


@given(ids)
def test_an_id_is_read_as_it_is_written(event_id: EventId) -> None:
    assert parse_id(str(event_id)) == event_id


@given(st.text(max_size=30))
def test_any_text_is_an_id_or_none(text: str) -> None:
    found = parse_id(text)
    assert found is None or str(found).split("-") == [str(int(part)) for part in text.split("-")]


@given(ids, st.integers(0, 10**18))
def test_ids_grow_whatever_the_clock_does(last: EventId, now_ms: int) -> None:
    assert next_id(last, now_ms) > last


class Kept(RuleBasedStateMachine):
    """One topic: the model has every event that there ever was."""

    @initialize(most=st.integers(1, 6), most_bytes=st.integers(1, 4 * (EVENT_OVERHEAD_BYTES + 60)))
    def begin(self, most: int, most_bytes: int) -> None:
        self.history = History(most_bytes, most, 10.0)
        self.now_ms = 1_000_000
        self.topic = Topic("t", self.history, EventId(self.now_ms, 0))
        self.start = self.topic.floor
        self.all: list[TopicEvent] = []
        self.kept = 0  # of the newest of them

    @rule(size=st.integers(0, 60), later=st.integers(0, 4000))
    def publish(self, size: int, later: int) -> None:
        self.now_ms += later
        event = event_of(next_id(self.topic.last, self.now_ms), b"data: " + b"x" * size + b"\n\n")
        self.topic.append(event)
        self.all.append(event)
        kept, held = 1, event.cost
        for older in reversed(self.all[:-1][-self.kept :] if self.kept else []):
            if held + older.cost > self.history.max_bytes or kept == self.history.max_events:
                break
            kept, held = kept + 1, held + older.cost
        self.kept = kept

    @rule(later=st.integers(0, 20_000))
    def expire(self, later: int) -> None:
        self.now_ms += later
        self.topic.expire(self.now_ms)
        self.kept = sum(event.id.ms >= self.now_ms - 10_000 for event in self.newest())

    def newest(self) -> list[TopicEvent]:
        return self.all[len(self.all) - self.kept :]

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "topic"):
            return
        topic, kept = self.topic, self.newest()
        assert topic.read(topic.first, 1 << 20) == kept
        assert (topic.first, topic.next) == (len(self.all) - self.kept, len(self.all))
        assert topic.held == sum(event.cost for event in kept)
        assert topic.held <= max(self.history.max_bytes, kept[-1].cost if kept else 0)
        # From what is kept, and from the last event before it, one can go on; from no other.
        for index, event in enumerate([TopicEvent(self.start, b""), *self.all]):
            known = index >= len(self.all) - self.kept
            assert topic.index_after(event.id) == (index if known else None)
        assert topic.index_after(next_id(topic.last, 0)) is None


Kept.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestKept = Kept.TestCase


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=80), st.integers(1, 3000))
def test_all_topics_together_hold_no_more_than_they_may(published: list[tuple[int, int]], most_bytes: int) -> None:
    bounds = Bounds(History(1500, 100, 100.0), 10, most_bytes, 0, 0)
    topics = Topics(bounds, lambda _: None)
    latest: dict[str, None] = {}
    for number, (which, size) in enumerate(published):
        name = f"t{which}"
        topic = topics.get(name) or topics.make(name, EventId(number, 0))
        topics.append(topic, event_of(EventId(number, 1), b"x" * size))
        latest.pop(name, None)
        latest[name] = None
        assert topics.held == sum(topic.held for topic in topics.all()) <= most_bytes
        # Whoever was published to least lately has given first.
        gave = [name for name in latest if not topics.get(name)]
        assert gave == list(latest)[: len(gave)]
    topics.tidy(200_000)
    assert (len(topics), topics.held) == (0, 0)
