"""All topics of this process, with bounds on their number, their subscribers, and the bytes of all histories.

The law of this file: a topic is kept as long as it has subscribers or events in its history, and no longer. Where all histories
together hold too many bytes, the topic that was published to least recently drops its oldest events first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import RETRY_SECONDS, OverloadedError
from .ids import EventId
from .topic import Follower, History, Topic, TopicEvent

__all__ = ["Bounds", "Topics"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits; those of subscribers may be 0, for none.

    history             of each topic
    max_bytes           of all histories together
    max_subscribers     of all topics together
    topic_subscribers   of one topic
    """

    history: History
    max_topics: int
    max_bytes: int
    max_subscribers: int
    topic_subscribers: int


class Topics:
    """All topics of this process. For one event loop only. `reject` is called with the reason of each refusal.

    held          bytes of all histories
    subscribers   of all topics
    """

    def __init__(self, bounds: Bounds, reject: Callable[[str], None]) -> None:
        self.bounds = bounds
        self.held = 0
        self.subscribers = 0
        self._reject = reject
        self._topics: OrderedDict[str, Topic] = OrderedDict()  # least recently published to first

    def __len__(self) -> int:
        return len(self._topics)

    def get(self, name: str) -> Topic | None:
        return self._topics.get(name)

    def all(self) -> tuple[Topic, ...]:
        return tuple(self._topics.values())

    def check_room(self, topics: int) -> None:
        """Raise OverloadedError where `topics`, their present number, is at the maximum."""
        if topics >= self.bounds.max_topics:
            self._refuse("topics", "the relay has as many topics as it keeps")

    def make(self, name: str, floor: EventId) -> Topic:
        """Make a topic whose first event will come after `floor`. The caller has called `check_room`."""
        topic = self._topics[name] = Topic(name, self.bounds.history, floor)
        return topic

    def append(self, topic: Topic, event: TopicEvent) -> None:
        """Append a new event to the topic and fan it out; drop old events where all histories hold too many bytes."""
        with self._accounted(topic):
            topic.append(event)
        self._topics.move_to_end(topic.name)
        self._shrink()

    def restart(self, topic: Topic, floor: EventId, events: list[TopicEvent]) -> None:
        """As Topic.restart."""
        with self._accounted(topic):
            topic.restart(floor, events)
        self._shrink()

    @contextmanager
    def listening(self, topic: Topic, listener: Follower) -> Iterator[None]:
        """Subscribe `listener` to the topic for as long as the `with` block runs. Raises OverloadedError."""
        bounds = self.bounds
        if bounds.max_subscribers and self.subscribers >= bounds.max_subscribers:
            self._refuse("subscribers", "the relay has as many subscribers as it takes")
        if bounds.topic_subscribers and len(topic.listeners) >= bounds.topic_subscribers:
            self._refuse("subscribers", "this topic has as many subscribers as it takes")
        topic.listeners[listener] = None
        self.subscribers += 1
        try:
            yield
        finally:
            del topic.listeners[listener]
            self.subscribers -= 1

    def tidy(self, now_ms: int) -> None:
        """Drop events past their maximum age, and topics without events and subscribers."""
        for topic in self.all():
            with self._accounted(topic):
                topic.expire(now_ms)
            if not topic.listeners and not topic:
                self.remove(topic)

    def remove(self, topic: Topic) -> None:
        """Remove a topic, which must have no subscribers."""
        del self._topics[topic.name]
        self.held -= topic.held

    def _shrink(self) -> None:
        if self.held <= self.bounds.max_bytes:
            return
        for topic in self.all():
            while topic and self.held > self.bounds.max_bytes:
                before = topic.held
                topic.forget_oldest()
                self.held -= before - topic.held
            if self.held <= self.bounds.max_bytes:
                return

    @contextmanager
    def _accounted(self, topic: Topic) -> Iterator[None]:
        self.held -= topic.held
        try:
            yield
        finally:
            self.held += topic.held

    def _refuse(self, reason: str, message: str) -> None:
        self._reject(reason)
        raise OverloadedError(f"{message}; try again", RETRY_SECONDS)
