"""One subscriber of a topic: its buffer, its place in the topic's history, and the events that it has lost. Sans-IO.

The law of this file. A publisher never waits for a subscriber: `offer` returns at once, whatever the policy. The buffer holds
references to frames, of `capacity` bytes at most. Events come out once and in order; an event that does not come out is either
counted in `dropped` or ends the subscription.

A subscriber is in one of two states. *Live*: events go into its buffer as they are published. *Behind*: it reads from the
topic's history at its own pace, and becomes live when it has read all. A subscriber that resumes begins behind. With the policy
`block` a full buffer makes it fall behind, so that the subscriber waits and not the publisher; it is disconnected as too slow
only when the history no longer has the event that it needs next.

| policy | the buffer is full | the history no longer has its next event |
|---|---|---|
| `block` | it falls behind | it is disconnected |
| `drop_oldest`, `drop_newest`, `latest` | as in memory/buffer.py | it continues with the oldest event that is kept |
| `disconnect` | it is disconnected | it is disconnected |
"""

from __future__ import annotations

import json
from typing import Final, Protocol

from ..memory.buffer import OverflowPolicy, SharedBuffer
from ..protocol.sse import encode
from .ids import EventId
from .topic import Topic, TopicEvent

__all__ = ["DROPPED", "GAP", "Owner", "Subscriber"]

# Names of events that the relay itself sends; publishers may use no name that begins with `relay.`.
GAP: Final = "relay.gap"
DROPPED: Final = "relay.dropped"

# The policies that end the subscription rather than lose an event.
LOSSLESS: Final = frozenset({"block", "disconnect"})


class Owner(Protocol):
    """Callbacks of a subscriber to its subscription. None of the three may raise."""

    def wake(self) -> None:
        """Bytes wait in the buffer."""

    def too_slow(self) -> None:
        """The subscription must end: its policy loses no events, and it is too slow."""

    def abandoned(self) -> None:
        """The subscription must end: the topic's log cannot be reached."""


class Subscriber:
    """One subscriber of `topic`.

    capacity   of the buffer, in bytes
    dropped    events that were lost
    held       bytes that wait in the buffer
    """

    __slots__ = (
        "_behind", "_buffer", "_cursor", "_notice", "_over", "_owner", "_reported", "_topic", "dropped", "policy",
    )  # fmt: skip

    def __init__(self, topic: Topic, policy: OverflowPolicy, capacity: int, owner: Owner) -> None:
        self.policy = policy
        self.dropped = 0
        self._topic = topic
        self._buffer = SharedBuffer(capacity, policy)
        self._owner = owner
        self._cursor = topic.next  # while it is behind: index of the event that it needs next
        self._behind = self._over = False
        self._notice = b""
        self._reported = 0  # the dropped events that the client has been told of, in a `relay.dropped` event

    @property
    def held(self) -> int:
        return self._buffer.held

    @property
    def idle(self) -> bool:
        """Whether no event and no notice waits for `take`."""
        return not (self._buffer or self._behind or self._notice)

    def resume(self, event_id: EventId | None, text: str) -> None:
        """Begin after the event `event_id`, the client's Last-Event-ID; None: its `text` is no id.

        Where events after it may be lost, begins with a `relay.gap` event and the oldest event that is kept.
        """
        index = None if event_id is None else self._topic.index_after(event_id)
        if index is None:
            self._notice = self._gap(text)
            index = self._topic.first
        self._cursor = index
        self._behind = index < self._topic.next

    # Called by the topic (topic.Follower)

    def offer(self, event: TopicEvent, index: int) -> None:
        if not self._behind and not self._over:  # one that is behind reads it from the history later
            self._put(event.frame, index)

    def broken(self) -> None:
        if self._over:
            return
        if self._behind:
            lost = self._topic.first - self._cursor
            self._behind = False
            if lost and self.policy in LOSSLESS:
                self._ends()
                return
            self.dropped += lost
        # The gap goes into the buffer, behind the events that were published before it.
        self._put(self._gap(None), None)

    def abandoned(self) -> None:
        if not self._over:
            self._owner.abandoned()

    # Called by the subscription (stream.py)

    def leaves(self) -> None:
        """The subscription has ended: drop the events, and the reference to the owner, which would be a reference cycle."""
        self._over = True
        self._behind = False
        self._notice = b""
        self._buffer.clear()
        del self._owner

    def take(self, limit: int) -> bytes:
        """The next whole events for the client, together about `limit` bytes at most, or one event; b"" where none waits."""
        if self._notice:
            notice, self._notice = self._notice, b""
            return notice
        if self.dropped > self._reported and self.policy != "latest":
            dropped, self._reported = self.dropped - self._reported, self.dropped
            return encode(json.dumps({"events": dropped}), event=DROPPED)
        if self._buffer:
            return self._buffer.take(limit)
        return self._read(limit) if self._behind else b""

    def _ends(self) -> None:
        """End the subscription as too slow: no event may come out after one that was lost."""
        self._over = True
        self._behind = False
        self._notice = b""
        self._buffer.clear()
        self._owner.too_slow()

    def _put(self, frame: bytes, index: int | None) -> None:
        """Put a frame into the buffer; `index` is the event's index in the history, None where it is not in it."""
        before = self._buffer.dropped
        try:
            waits = self._buffer.put(frame)
        except OverflowError:
            self._ends()
            return
        self.dropped += self._buffer.dropped - before
        if waits:
            self._owner.wake()
        elif index is not None:
            self._behind, self._cursor = True, index
        else:
            self._ends()

    def _read(self, limit: int) -> bytes:
        topic = self._topic
        lost = topic.first - self._cursor
        if lost > 0:
            if self.policy in LOSSLESS:
                self._ends()
                return b""
            self.dropped += lost
            self._cursor = topic.first
            return self.take(limit)
        events = topic.read(self._cursor, limit)
        self._cursor += len(events)
        self._behind = self._cursor < topic.next
        return b"".join(event.frame for event in events)

    def _gap(self, after: str | None) -> bytes:
        """The frame of a `relay.gap` event: events may be missing here. Its id is one that can be resumed from."""
        oldest = self._topic.oldest
        data = {"after": after, "kept_from": None if oldest is None else str(oldest)}
        return encode(json.dumps(data), event=GAP, id=str(self._topic.floor))
