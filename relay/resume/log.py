"""The events of one stream that are kept, from which a client gets what it missed. Sans-IO.

The law of this file: an event is kept once, however many clients want it, and the numbers of kept events are contiguous: from
`first` to `last`. What is dropped is dropped from the beginning, so that a client gets either every event after its own last
one, or an error. Bounds are for the one that keeps all logs (logs.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, Literal, Protocol

from ..errors import ApiError

__all__ = ["EVENT_OVERHEAD_BYTES", "Follower", "StreamLog"]

# The memory of an event beside its bytes: the bytes object's header, and its place in the deque. Charged to the log, so that
# many tiny events are bounded by their true size.
EVENT_OVERHEAD_BYTES: Final = 64
FEW_EVENTS: Final = 16


class Follower(Protocol):
    """Callbacks of a log to a client that follows it. None of the three may raise."""

    def offer(self, event: bytes, number: int) -> None:
        """A new event, the next one after the last offered."""

    def ended(self) -> None:
        """The log has got its last event."""

    def broken(self, error: ApiError) -> None:
        """The log will get no more events, and has not all of the stream's."""


class StreamLog:
    """One stream's log.

    id          the stream's
    caller      the name of the key that asked for it; "" where the relay has no keys
    first       the number of the oldest event that is kept
    held        bytes of the kept events, with overhead
    is_over     there will be no more events
    failed      the last event is an error
    followers   an ordered set
    told        whoever copies the log knows that it has grown, and need not be told of its next event
    """

    __slots__ = ("_events", "caller", "failed", "first", "followers", "held", "id", "is_over", "told")

    def __init__(self, stream_id: str, caller: str, first: int = 1) -> None:
        self.id = stream_id
        self.caller = caller
        self.first = first
        self.held = 0
        self.is_over = False
        self.failed = False
        self.told = False
        self.followers: dict[Follower, None] = {}
        self._events: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def last(self) -> int:
        """The number of the newest event, kept or not; 0 where there was none."""
        return self.first + len(self._events) - 1

    def append(self, events: Sequence[bytes]) -> int:
        """Append the events after `last`, and offer them to all followers. Returns their bytes, with overhead."""
        assert not self.is_over, "a stream that is over has no more events"
        self._events.extend(events)
        size = EVENT_OVERHEAD_BYTES * len(events)
        for event in events:  # mostly one, for which this is faster than sum()
            size += len(event)
        self.held += size
        if self.followers:
            for number, event in enumerate(events, self.last - len(events) + 1):
                for follower in tuple(self.followers):  # one that is too slow leaves at once
                    follower.offer(event, number)
        return size

    def end(self, *, failed: bool) -> None:
        """There will be no more events."""
        if not self.is_over:
            self.is_over, self.failed = True, failed
            for follower in tuple(self.followers):
                follower.ended()

    def place(self, after: int) -> Literal["kept", "dropped", "future"]:
        """Whether all events after the one with this number are there, or some are dropped, or it is not there yet itself."""
        if after > self.last:
            return "future"
        return "kept" if after >= self.first - 1 else "dropped"

    def read(self, after: int, max_bytes: int) -> list[bytes]:
        """The events after a number, which must be `kept`: about `max_bytes` at most, but at least one if there is one."""
        assert after >= self.first - 1, (after, self.first)
        count = self.last - after
        if count <= FEW_EVENTS:
            # Most reads: who keeps up has missed the last few.
            events = [self._events[index] for index in range(-count, 0)]
            if sum(map(len, events)) + EVENT_OVERHEAD_BYTES * count <= max_bytes:
                return events
        events, size = [], 0
        # By index, which a deque finds from its nearer end: who keeps up reads the last few of thousands, again and again.
        for index in range(after - self.first + 1, len(self._events)):
            event = self._events[index]
            size += len(event) + EVENT_OVERHEAD_BYTES
            if events and size > max_bytes:
                break
            events.append(event)
        return events

    def bytes_after(self, after: int) -> int:
        """Bytes of the kept events after a number, with overhead."""
        skipped = max(after - self.first + 1, 0)
        return sum(map(len, islice(self._events, skipped, None))) + EVENT_OVERHEAD_BYTES * (len(self) - skipped)

    def forget_oldest(self) -> int:
        """Drop the oldest event. Returns its bytes, with overhead."""
        size = len(self._events.popleft()) + EVENT_OVERHEAD_BYTES
        self.held -= size
        self.first += 1
        return size
