"""One subscriber of a topic: what waits for it, and what it has missed. Sans-IO.

The law of this file. A publisher never waits for a subscriber: `offer` returns at once, whatever the policy says. What waits
here are references, `capacity` bytes of frames at most. Events come out once, in their order, and every one that does not is
either counted in `dropped` or ends the subscription.

It is in one of two states. *Live*, events are put into its buffer as they are published. *Behind*, it reads from the topic's
history at its own pace, and becomes live when it has read all: so it begins where it resumes, and so `block` means for
fan-out that the subscriber waits, not the publisher: what its buffer has no room for it reads from the history afterwards,
and only when the history has forgotten what it needs next, it is too slow to be kept.

| policy | its buffer is full | it is behind, and the history forgets its next event |
|---|---|---|
| `block` | it falls behind | it is too slow |
| `drop_oldest`, `drop_newest`, `latest` | as buffer.py says | it goes on with the oldest that is kept |
| `disconnect` | it is too slow | it is too slow |
"""

from __future__ import annotations

import json
from typing import Final, Protocol

from ..memory.buffer import OverflowPolicy, SharedBuffer
from ..protocol.sse import encode
from .ids import EventId
from .topic import Event, Topic

__all__ = ["DROPPED", "GAP", "Owner", "Subscriber"]

# Names of events that the relay makes; a publisher may use none that begins so.
GAP: Final = "relay.gap"
DROPPED: Final = "relay.dropped"

# They end the subscription rather than lose an event.
LOSSLESS: Final = frozenset({"block", "disconnect"})


class Owner(Protocol):
    """Whose subscription it is. None of the three may raise."""

    def wake(self) -> None:
        """Something waits."""

    def too_slow(self) -> None:
        """The subscription must end: the policy has no other means."""

    def abandoned(self) -> None:
        """The subscription must end: the log cannot be had."""


class Subscriber:
    """See above.

    `dropped` events were thrown away by the policy; `held` bytes wait in the buffer.
    """

    __slots__ = (
        "_behind", "_buffer", "_cursor", "_notice", "_over", "_owner", "_told", "_topic", "dropped", "policy",
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
        self._told = 0  # of the dropped ones

    @property
    def held(self) -> int:
        return self._buffer.held

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not (self._buffer or self._behind or self._notice)

    def resume(self, wanted: EventId | None, wanted_text: str) -> None:
        """Begin after the event `wanted`, as a client's Last-Event-ID says; None for a text that is no id."""
        index = None if wanted is None else self._topic.index_after(wanted)
        if index is None:
            self._notice = self._gap(wanted_text)
            index = self._topic.first
        self._cursor = index
        self._behind = index < self._topic.next

    # what the topic calls

    def offer(self, event: Event, index: int) -> None:
        if not self._behind and not self._over:  # else it comes to it by itself
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
        # It has its place among the events: what waits was published before.
        self._put(self._gap(None), None)

    def abandoned(self) -> None:
        if not self._over:
            self._owner.abandoned()

    # what the stream calls

    def leaves(self) -> None:
        """Its stream has ended: keep nothing, tell nobody. The two would wait for the garbage collector together."""
        self._over = True
        self._behind = False
        self._notice = b""
        self._buffer.clear()
        del self._owner

    def take(self, limit: int) -> bytes:
        """The next bytes for the client, of whole events, about `limit` at most or one event; b"" where nothing waits."""
        if self._notice:
            notice, self._notice = self._notice, b""
            return notice
        if self.dropped > self._told and self.policy != "latest":
            dropped, self._told = self.dropped - self._told, self.dropped
            return encode(json.dumps({"events": dropped}), event=DROPPED)
        if self._buffer:
            return self._buffer.take(limit)
        return self._read(limit) if self._behind else b""

    def _ends(self) -> None:
        """Nothing more comes out: what follows would follow on a loss."""
        self._over = True
        self._behind = False
        self._notice = b""
        self._buffer.clear()
        self._owner.too_slow()

    def _put(self, frame: bytes, index: int | None) -> None:
        """Let a frame wait; `index` is where the history has it, None where it has not."""
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

    def _gap(self, wanted: str | None) -> bytes:
        """What a subscriber is told where events may be missing; its id is one that can be resumed from."""
        oldest = self._topic.oldest
        data = {"after": wanted, "kept_from": None if oldest is None else str(oldest)}
        return encode(json.dumps(data), event=GAP, id=str(self._topic.floor))
