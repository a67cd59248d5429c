"""One topic: its subscribers, and its history, from which a client resumes. Sans-IO.

The law of this file: events come in the order of their ids and are kept once, however many subscribers wait for them. The
history is bounded in bytes, events and age; `floor` is the id of the newest event that it has dropped (or where the topic
began). A client can resume from `floor` and from the id of an event that is kept. From any other id, one from before a loss
or of another log, it cannot, and gets a gap event.

An event also has an index, counted from the topic's beginning in this process: a subscriber that reads from the history has
one as its cursor, and the difference of two indexes is a number of events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple, Protocol

from .ids import EventId

__all__ = ["EVENT_OVERHEAD_BYTES", "Follower", "History", "Topic", "TopicEvent", "event_of"]

# The memory of an event without its frame: the bytes object's header, the tuple, the id with its two numbers, its place in the
# deque. Charged to the history, so that many tiny events are bounded by their true size.
EVENT_OVERHEAD_BYTES: Final = 256


class History(NamedTuple):
    """The bounds of one topic's history; `max_bytes` includes EVENT_OVERHEAD_BYTES an event. The newest is always kept."""

    max_bytes: int
    max_events: int
    max_seconds: float


class TopicEvent(NamedTuple):
    """One event as every subscriber gets it: the bytes of its SSE frame, id and blank line included."""

    id: EventId
    frame: bytes

    @property
    def cost(self) -> int:
        return len(self.frame) + EVENT_OVERHEAD_BYTES


class Follower(Protocol):
    """Callbacks of a topic to a subscriber. None of the three may raise."""

    def offer(self, event: TopicEvent, index: int) -> None:
        """A new event, the next one after the last offered."""

    def broken(self) -> None:
        """Events may be lost between the last one and the next one; see Topic.restart."""

    def abandoned(self) -> None:
        """No more events will come: the topic's log cannot be reached."""


def event_of(event_id: EventId, body: bytes) -> TopicEvent:
    r"""The event with this id and these SSE fields, encoded by `sse.encode` without an id.

    >>> event_of(EventId(7, 0), b"data: x\n\n").frame
    b'id: 7-0\ndata: x\n\n'
    """
    return TopicEvent(event_id, b"id: %d-%d\n%b" % (*event_id, body))


class Topic:
    """One topic. `last` is the id of its newest event, or `floor`; `held` the size of the history in bytes, with overhead."""

    def __init__(self, name: str, history: History, floor: EventId) -> None:
        self.name = name
        self.floor = floor
        self.last = floor
        self.held = 0
        self.first = 0  # index of the oldest event that is kept
        self.listeners: dict[Follower, None] = {}  # an ordered set
        self._history = history
        self._events: deque[TopicEvent] = deque()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def next(self) -> int:
        """Index of the event that comes next."""
        return self.first + len(self._events)

    @property
    def oldest(self) -> EventId | None:
        return self._events[0].id if self._events else None

    def append(self, event: TopicEvent) -> None:
        """Append a new event and offer it to all subscribers. Its id must be greater than `last`."""
        assert event.id > self.last, (event.id, self.last)
        index = self.next
        self._keep(event)
        history = self._history
        while len(self._events) > 1 and (self.held > history.max_bytes or len(self._events) > history.max_events):
            self.forget_oldest()
        for listener in tuple(self.listeners):  # one that is too slow leaves at once
            listener.offer(event, index)

    def restart(self, floor: EventId, events: Iterable[TopicEvent] = ()) -> None:
        """Events were lost or missed: restart the history after `floor`, with `events`. All subscribers get a gap event."""
        self.first = self.next
        self._events.clear()
        self.held = 0
        self.floor = self.last = floor
        for listener in tuple(self.listeners):
            listener.broken()
        for event in events:
            self.append(event)

    def abandon(self) -> None:
        """End all subscriptions: the log cannot be reached."""
        for listener in tuple(self.listeners):
            listener.abandoned()

    def index_after(self, event_id: EventId) -> int | None:
        """The index of the first event after `event_id`; None where events between may be lost, or the id is of another log."""
        if event_id == self.floor:
            return self.first
        for index, event in enumerate(self._events, self.first):
            if event.id == event_id:
                return index + 1
        return None

    def read(self, index: int, max_bytes: int) -> list[TopicEvent]:
        """The events from `index` (>= `first`) on: `max_bytes` of frames at most, but at least one event if there is one."""
        events: list[TopicEvent] = []
        size = 0
        for event in islice(self._events, index - self.first, None):
            size += len(event.frame)
            if events and size > max_bytes:
                break
            events.append(event)
        return events

    def expire(self, now_ms: int) -> None:
        """Drop events past the maximum age. `now_ms` must be of the clock that made the ids."""
        oldest_ms = now_ms - self._history.max_seconds * 1000
        while self._events and self._events[0].id.ms < oldest_ms:
            self.forget_oldest()

    def forget_oldest(self) -> None:
        event = self._events.popleft()
        self.held -= event.cost
        self.floor = event.id
        self.first += 1

    def _keep(self, event: TopicEvent) -> None:
        self._events.append(event)
        self.held += event.cost
        self.last = event.id
