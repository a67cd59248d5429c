"""A buffer bounded in bytes, that never splits an event, and what it does when it is full.

The law of this file: `held` never exceeds `capacity`, whatever is put in; what comes out are whole events in their order; every
event that went in and does not come out is counted in `dropped`.

| policy | a full buffer and one more event |
|---|---|
| `block` | it does not go in: whoever puts it waits for room (backpressure) |
| `drop_oldest` | the oldest events make room |
| `drop_newest` | it is dropped |
| `latest` | it replaces everything, full or not: only the newest event is ever held |
| `disconnect` | OverflowError: the consumer is too slow to be kept |

Two ways to keep the events. `ByteBuffer` copies them into pooled segments: for the chunks of one upstream (read_ahead.py), that
come in any size, and whose memory is then the segments' alone. `SharedBuffer` keeps references: for fan-out (hub/),
where one event waits for many subscribers and a copy for each would multiply it. Both wait for nothing and know no event loop;
`Channel` is the thin asyncio side.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Literal, NamedTuple, get_args

__all__ = [
    "POLICIES",
    "ByteBuffer",
    "Channel",
    "EventBuffer",
    "OverflowPolicy",
    "PoolStatistics",
    "SegmentPool",
    "SharedBuffer",
]

OverflowPolicy = Literal["block", "drop_oldest", "drop_newest", "latest", "disconnect"]
POLICIES: Final[tuple[str, ...]] = get_args(OverflowPolicy)


class PoolStatistics(NamedTuple):
    """Segments lent out now and kept for the next one; requests that a kept one served, and that needed a new one."""

    used: int
    free: int
    hits: int
    misses: int


class SegmentPool:
    """Segments of one size, used again instead of allocated for each stream: what sync.Pool is in Go.

    It keeps `max_free` of them at most, so that one busy minute is not held for ever. One event loop uses it.

    >>> pool = SegmentPool(segment_bytes=1024, max_free=1)
    >>> pool.give(pool.take()); _ = pool.take(); pool.statistics()
    PoolStatistics(used=1, free=0, hits=1, misses=1)
    """

    def __init__(self, segment_bytes: int = 16 * 1024, max_free: int = 64) -> None:
        self.segment_bytes = segment_bytes
        self._max_free = max_free
        self._free: list[bytearray] = []
        self._used = self._hits = self._misses = 0

    def take(self) -> bytearray:
        """A segment; what is in it is somebody's past."""
        self._used += 1
        if self._free:
            self._hits += 1
            return self._free.pop()
        self._misses += 1
        return bytearray(self.segment_bytes)

    def give(self, segment: bytearray) -> None:
        """Take back a segment that nobody uses any more."""
        self._used -= 1
        if len(self._free) < self._max_free:
            self._free.append(segment)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(self._used, len(self._free), self._hits, self._misses)


class EventBuffer(ABC):
    """Events, first in first out, of `capacity` bytes together at most: the policies, whatever the events are kept in.

    held        bytes in it now, `high_water` the most there ever were
    dropped     events that the policy threw away
    """

    def __init__(self, capacity: int, policy: OverflowPolicy) -> None:
        if policy not in POLICIES:
            raise ValueError(f"unknown policy {policy!r}, one of {', '.join(POLICIES)}")
        self.capacity = capacity
        self.policy = policy
        self.held = 0
        self.high_water = 0
        self.dropped = 0

    @abstractmethod
    def __len__(self) -> int:
        """How many events are held."""

    @abstractmethod
    def take(self, limit: int | None = None) -> bytes:
        """The oldest events, together `limit` bytes at most but at least one event; b"" where none is held."""

    @abstractmethod
    def clear(self) -> None:
        """Forget everything. What is forgotten so is not counted as dropped."""

    @abstractmethod
    def _append(self, event: bytes) -> None: ...

    @abstractmethod
    def _drop_oldest(self) -> None: ...

    def put(self, event: bytes) -> bool:
        """Put one event in. False: there is no room and the policy is `block`; try again when something was taken.

        Raises ValueError for an empty event (`take` could not tell it from none) and for one larger than the whole buffer, and
        OverflowError where the policy is `disconnect`.
        """
        size = len(event)
        if not size:
            raise ValueError("an event has at least one byte")
        if size > self.capacity:
            raise ValueError(f"an event of {size} bytes never fits a buffer of {self.capacity}: raise its capacity")
        if self.policy == "latest":
            self.dropped += len(self)
            self.clear()
        elif self.held + size > self.capacity:
            match self.policy:
                case "block":
                    return False
                case "drop_newest":
                    self.dropped += 1
                    return True
                case "disconnect":
                    raise OverflowError(f"{self.held} of {self.capacity} bytes wait for a consumer that is too slow")
            while self.held + size > self.capacity:
                self._drop_oldest()
                self.dropped += 1
        self._append(event)
        self.high_water = max(self.high_water, self.held)
        return True


class SharedBuffer(EventBuffer):
    """References to events that others hold, too: what fan-out needs, where a thousand subscribers wait for the same bytes.

    >>> first = b"first"
    >>> buffer = SharedBuffer(10, "drop_oldest")
    >>> buffer.put(first), buffer.take() is first
    (True, True)
    """

    def __init__(self, capacity: int, policy: OverflowPolicy) -> None:
        super().__init__(capacity, policy)
        self._events: deque[bytes] | None = None  # an empty deque has 600 bytes, and most subscribers wait for nothing

    def __len__(self) -> int:
        return len(self._events) if self._events is not None else 0

    def take(self, limit: int | None = None) -> bytes:
        events = self._events
        if not events:
            return b""
        taken = [events.popleft()]
        size = len(taken[0])
        while events and (limit is None or size + len(events[0]) <= limit):
            size += len(events[0])
            taken.append(events.popleft())
        self.held -= size
        if not events:
            self._events = None
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> None:
        self._events = None
        self.held = 0

    def _append(self, event: bytes) -> None:
        if self._events is None:
            self._events = deque()
        self._events.append(event)
        self.held += len(event)

    def _drop_oldest(self) -> None:
        if self._events:
            self.held -= len(self._events.popleft())


class ByteBuffer(EventBuffer):
    """Copies of events, in segments of a pool: what one producer needs whose chunks nobody else holds.

    >>> buffer = ByteBuffer(10, "drop_oldest", SegmentPool())
    >>> [buffer.put(event) for event in (b"first", b"second", b"third")]
    [True, True, True]
    >>> buffer.take(), buffer.dropped
    (b'third', 2)
    """

    def __init__(self, capacity: int, policy: OverflowPolicy, pool: SegmentPool) -> None:
        super().__init__(capacity, policy)
        self._pool = pool
        self._sizes: deque[int] = deque()  # of the events, the oldest first
        self._segments: deque[bytearray] = deque()
        self._start = 0  # of the oldest event, in the first segment
        self._end = 0  # of the newest event, in the last segment

    def __len__(self) -> int:
        return len(self._sizes)

    def take(self, limit: int | None = None) -> bytes:
        size = 0
        while self._sizes and (not size or limit is None or size + self._sizes[0] <= limit):
            size += self._sizes.popleft()
        taken = self._front(size)
        self._forget(size)
        return taken

    def clear(self) -> None:
        """As everywhere, and the segments go back to the pool."""
        self._sizes.clear()
        self._forget(self.held)

    def _drop_oldest(self) -> None:
        self._forget(self._sizes.popleft())

    def _append(self, event: bytes) -> None:
        self._sizes.append(len(event))
        self.held += len(event)
        whole = self._pool.segment_bytes
        rest = memoryview(event)
        while rest:
            if not self._segments or self._end == whole:
                self._segments.append(self._pool.take())
                self._end = 0
            fits = min(len(rest), whole - self._end)
            self._segments[-1][self._end : self._end + fits] = rest[:fits]
            self._end += fits
            rest = rest[fits:]

    def _front(self, size: int) -> bytes:
        parts = []
        start = self._start
        for segment in self._segments:
            if not size:
                break
            part = bytes(memoryview(segment)[start : start + size])
            parts.append(part)
            size -= len(part)
            start = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _forget(self, size: int) -> None:
        """Move the front on by `size` bytes; segments that it leaves behind go back to the pool."""
        self.held -= size
        self._start += size
        while self._segments and (self._start >= self._pool.segment_bytes or not self.held):
            self._pool.give(self._segments.popleft())
            self._start -= self._pool.segment_bytes
        if not self._segments:
            self._start = self._end = 0


class Channel:
    """A buffer between a task that puts and one that takes, on one event loop."""

    def __init__(self, buffer: EventBuffer) -> None:
        self.buffer = buffer
        self._changed = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    async def put(self, event: bytes) -> None:
        """Put one event in; waits for room where the policy is `block`. Raises as EventBuffer.put does."""
        while not self.buffer.put(event):
            self._changed.clear()
            await self._changed.wait()
        self._changed.set()

    async def take(self, limit: int | None = None) -> bytes:
        """As EventBuffer.take, but waits for an event; b"" at the end. Raises what `close` was given, after the last event."""
        while not self.buffer and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if not self.buffer and self._error is not None:
            raise self._error
        taken = self.buffer.take(limit)
        self._changed.set()
        return taken

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will be put; what is held can still be taken."""
        self._closed, self._error = True, error
        self._changed.set()
