"""All topics of this process, bounded together: how many there are, who listens, what their histories hold.

The law of this file: a topic is here as long as somebody listens or something is kept of it, and no longer. Where all
histories together hold too much, the topic that nobody published to for longest forgets its oldest events first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ..errors import OverloadedError
from .ids import EventId
from .topic import Event, Follower, History, Topic

__all__ = ["Bounds", "Topics"]

# A full hub has room again when somebody leaves, and nobody knows when that is.
RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits; those of subscribers may be 0, for none.

    max_bytes              of all histories together
    max_subscribers        in all; `topic_subscribers` of one topic
    """

    history: History
    max_topics: int
    max_bytes: int
    max_subscribers: int
    topic_subscribers: int


class Topics:
    """See above. One event loop uses it. `reject` is told a fixed word for each refusal."""

    def __init__(self, bounds: Bounds, reject: Callable[[str], None]) -> None:
        self.bounds = bounds
        self.held = 0
        self.subscribers = 0
        self._reject = reject
        self._topics: OrderedDict[str, Topic] = OrderedDict()  # the one published to last is the last

    def __len__(self) -> int:
        return len(self._topics)

    def get(self, name: str) -> Topic | None:
        return self._topics.get(name)

    def all(self) -> tuple[Topic, ...]:
        return tuple(self._topics.values())

    def check_room(self, topics: int) -> None:
        """Raises OverloadedError where there are as many as may be."""
        if topics >= self.bounds.max_topics:
            self._refuse("topics", "the relay has as many topics as it keeps")

    def make(self, name: str, floor: EventId) -> Topic:
        """A new topic, which begins after `floor`. The caller has checked that there is room."""
        topic = self._topics[name] = Topic(name, self.bounds.history, floor)
        return topic

    def append(self, topic: Topic, event: Event) -> None:
        """Keep and fan out a new event."""
        with self._accounted(topic):
            topic.append(event)
        self._topics.move_to_end(topic.name)
        self._shrink()

    def restart(self, topic: Topic, floor: EventId, events: list[Event]) -> None:
        """As Topic.restart."""
        with self._accounted(topic):
            topic.restart(floor, events)
        self._shrink()

    @contextmanager
    def listening(self, topic: Topic, listener: Follower) -> Iterator[None]:
        """Have `listener` told of the topic's events for as long as the block runs. Raises OverloadedError."""
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
        """Forget events that are too old, and topics that nothing is left of."""
        for topic in self.all():
            with self._accounted(topic):
                topic.expire(now_ms)
            if not topic.listeners and not topic:
                self.remove(topic)

    def remove(self, topic: Topic) -> None:
        """Forget a topic that nobody listens to."""
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
