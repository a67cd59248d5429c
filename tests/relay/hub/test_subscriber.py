"""A subscriber against a model, under every overflow policy: events once and in order, every loss counted, no wait."""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.hub.ids import EventId, next_id, parse_id
from relay.hub.subscriber import LOSSLESS, Subscriber
from relay.hub.topic import EVENT_OVERHEAD_BYTES, History, Topic, TopicEvent, event_of
from relay.memory.buffer import POLICIES, OverflowPolicy
from relay.protocol.sse import Event as Decoded
from relay.protocol.sse import EventDecoder

CAPACITY = 400


class Owner:
    def __init__(self) -> None:
        self.ended = False

    def wake(self) -> None:
        pass

    def too_slow(self) -> None:
        self.ended = True

    def abandoned(self) -> None:
        self.ended = True


class Client:
    """One subscriber and what has come out of it, from the event `begins` of the topic on."""

    def __init__(self, topic: Topic, policy: OverflowPolicy, begins: int) -> None:
        self.owner = Owner()
        self.subscriber = Subscriber(topic, policy, CAPACITY, self.owner)
        self.decoder = EventDecoder()
        self.seen: list[Decoded] = []
        self.begins = begins
        self.told = self.gaps = 0
        topic.listeners[self.subscriber] = None

    def take(self, limit: int) -> bool:
        chunk = self.subscriber.take(limit)
        for event in self.decoder.feed(chunk):
            if event.event == "relay.dropped":
                self.told += json.loads(event.data)["events"]
            elif event.event == "relay.gap":
                self.gaps += 1
            else:
                self.seen.append(event)
        return bool(chunk)


class Subscribed(RuleBasedStateMachine):
    """A topic with a small history, publishers, and one subscriber that takes now and then."""

    @initialize(policy=st.sampled_from(POLICIES), events=st.integers(2, 12))
    def begin(self, policy: OverflowPolicy, events: int) -> None:
        self.policy = policy
        self.topic = Topic("t", History(events * (EVENT_OVERHEAD_BYTES + 150), 100, 1e9), EventId(1, 0))
        self.all: list[TopicEvent] = []
        self.client = Client(self.topic, policy, 0)

    @rule(size=st.integers(1, 120), times=st.integers(1, 4))
    def publish(self, size: int, times: int) -> None:
        for _ in range(times):
            body = b"data: %d %b\n\n" % (len(self.all), b"x" * size)
            event = event_of(next_id(self.topic.last, 0), body)
            self.all.append(event)
            self.topic.append(event)

    @rule(limit=st.integers(1, 600))
    def take(self, limit: int) -> None:
        self.client.take(limit)

    @precondition(lambda self: self.client.owner.ended or len(self.client.seen) > 3)
    @rule()
    def connect_again(self) -> None:
        """As EventSource does: with the id of the last event that it saw."""
        client = self.client
        del self.topic.listeners[client.subscriber]
        wanted = parse_id(client.decoder.last_event_id) or EventId(1, 0)
        position = next((n for n, event in enumerate(self.all) if event.id == wanted), -1) + 1
        self.client = Client(self.topic, self.policy, position)
        self.client.subscriber.resume(wanted, str(wanted))

    @invariant()
    def nothing_is_lost_without_a_word(self) -> None:
        if not hasattr(self, "client"):
            return
        client, subscriber = self.client, self.client.subscriber
        assert subscriber.held <= CAPACITY
        numbers = [int(event.data.split()[0]) for event in client.seen]
        assert numbers == sorted(set(numbers)), "once, and in order"
        assert all(event.id == str(self.all[n].id) for n, event in zip(numbers, client.seen, strict=True))
        if self.policy in LOSSLESS and numbers:
            first = numbers[0] if client.gaps else client.begins
            assert numbers == list(range(first, first + len(numbers)))
        assert client.told <= subscriber.dropped
        if self.policy == "block":
            assert subscriber.dropped == 0

    def teardown(self) -> None:
        """A client that reads on gets all that was not dropped; and what was is counted to the event."""
        if not hasattr(self, "client") or self.client.owner.ended:
            return
        client = self.client
        while client.take(100):
            pass
        if client.owner.ended:
            assert self.policy in LOSSLESS
            return
        assert client.subscriber.idle
        if not client.gaps:
            assert len(client.seen) + client.subscriber.dropped == len(self.all) - client.begins
        if self.policy != "latest":
            assert client.told == client.subscriber.dropped


Subscribed.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestSubscribed = Subscribed.TestCase


def published(topic: Topic, number: int) -> TopicEvent:
    event = event_of(next_id(topic.last, 0), b"data: %d\n\n" % number)
    topic.append(event)
    return event


@pytest.fixture
def topic() -> Topic:
    return Topic("t", History(10_000, 10, 1e9), EventId(1, 0))


@pytest.mark.parametrize("wanted", ["", "7", "0-0", "9999999999999-0", "<script>", "x" * 5000])
def test_an_id_that_is_not_known_is_told_of_and_what_is_kept_follows(topic: Topic, wanted: str) -> None:
    for number in range(15):
        published(topic, number)
    client = Client(topic, "block", 0)
    client.subscriber.resume(parse_id(wanted), wanted)
    frame = client.subscriber.take(1000)
    (gap,) = client.decoder.feed(frame)
    assert json.loads(gap.data) == {"after": wanted, "kept_from": str(topic.oldest)}
    # Whoever connects again at once goes on from there.
    assert parse_id(gap.id) == topic.floor
    assert topic.index_after(topic.floor) == 5
    while client.take(50):
        pass
    assert [event.data for event in client.seen] == [str(number) for number in range(5, 15)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_log_that_was_lost_is_told_of_in_its_place(topic: Topic, policy: OverflowPolicy) -> None:
    client = Client(topic, policy, 0)
    published(topic, 1)
    topic.restart(EventId(50, 0), [event_of(EventId(51, 0), b"data: 2\n\n")])
    while client.take(1000):
        pass
    if policy == "latest":
        assert [event.data for event in client.seen] == ["2"]
    else:
        assert ([event.data for event in client.seen], client.gaps) == (["1", "2"], 1)
    assert topic.index_after(EventId(50, 0)) is not None
    assert topic.index_after(EventId(1, 0)) is None
    assert not client.owner.ended
