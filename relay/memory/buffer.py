"""Buffers of events, bounded in bytes, with a choice of overflow policies.

The law of this file: `held` never exceeds `capacity`; events come out whole and in their order; every event that went in and
does not come out is counted in `dropped`.

| policy | when one more event does not fit |
|---|---|
| `block` | the event is refused: the producer waits for room (backpressure) |
| `drop_oldest` | the oldest events are dropped to make room |
| `drop_newest` | the new event is dropped |
| `latest` | a new event always replaces all others, full or not: only the newest one is held |
| `disconnect` | OverflowError: the consumer is too slow, and is to be disconnected |

The events are kept in one of two ways. `ByteBuffer` copies them into pooled segments: for the chunks of one upstream
(stream/read_ahead.py), which come in any size. `SharedBuffer` keeps references: for fan-out (hub/), where one event waits for
many subscribers and a copy for each would multiply it. Both are synchronous and use no event loop; `Channel` adds the waiting.
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
    """Segments: in use now, kept free for reuse; and calls of `take` that reused one, and that made one."""

    used: int
    free: int
    hits: int
    misses: int


class SegmentPool:
    """Byte segments of one size, reused instead of allocated for each stream (as Go's sync.Pool).

    The pool keeps at most `max_free` unused segments, so that memory after a peak is freed. For one event loop only.

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
        """A segment, with arbitrary old bytes in it."""
        self._used += 1
        if self._free:
            self._hits += 1
            return self._free.pop()
        self._misses += 1
        return bytearray(self.segment_bytes)

    def give(self, segment: bytearray) -> None:
        """Return a segment that is no longer used."""
        self._used -= 1
        if len(self._free) < self._max_free:
            self._free.append(segment)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(self._used, len(self._free), self._hits, self._misses)


class EventBuffer(ABC):
    """A first-in, first-out buffer of `capacity` bytes at most. Has the policies; subclasses store the events.

    held         bytes in the buffer now
    high_water   the most bytes that it ever held
    dropped      events that the policy dropped
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
        """Take out the oldest events, `limit` bytes at most but at least one event; b"" where the buffer is empty."""

    @abstractmethod
    def clear(self) -> None:
        """Remove all events, without counting them as dropped."""

    @abstractmethod
    def _append(self, event: bytes) -> None: ...

    @abstractmethod
    def _drop_oldest(self) -> None: ...

    def put(self, event: bytes) -> bool:
        """Put one event in. Returns False where there is no room and the policy is `block`: try again after a `take`.

        Raises ValueError for an empty event (`take` returns b"" for no event) and for one larger than the whole buffer, and
        OverflowError where there is no room and the policy is `disconnect`.
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
    """A buffer of references to events, for fan-out: a thousand subscribers wait for the same bytes object.

    >>> first = b"first"
    >>> buffer = SharedBuffer(10, "drop_oldest")
    >>> buffer.put(first), buffer.take() is first
    (True, True)
    """

    def __init__(self, capacity: int, policy: OverflowPolicy) -> None:
        super().__init__(capacity, policy)
        self._events: deque[bytes] | None = None  # None while empty, as mostly: an empty deque has 600 bytes

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
    """A buffer of copies of events, in segments of a pool, for one producer whose chunks are held nowhere else.

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
        self._start = 0  # where the oldest event begins in the first segment
        self._end = 0  # where the newest event ends in the last segment

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
        """As EventBuffer.clear; the segments go back to the pool."""
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
        """Remove the first `size` bytes; segments that are empty then go back to the pool."""
        self.held -= size
        self._start += size
        while self._segments and (self._start >= self._pool.segment_bytes or not self.held):
            self._pool.give(self._segments.popleft())
            self._start -= self._pool.segment_bytes
        if not self._segments:
            self._start = self._end = 0


class Channel:
    """A buffer between one task that puts and one that takes, on one event loop; either can wait for the other."""

    def __init__(self, buffer: EventBuffer) -> None:
        self.buffer = buffer
        self._changed = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    async def put(self, event: bytes) -> None:
        """Put one event in, waiting for room where the policy is `block`. Raises as EventBuffer.put does."""
        while not self.buffer.put(event):
            self._changed.clear()
            await self._changed.wait()
        self._changed.set()

    async def take(self, limit: int | None = None) -> bytes:
        """As EventBuffer.take, waiting for an event. After `close` and the last event: b"", or raises the error of `close`."""
        while not self.buffer and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if not self.buffer and self._error is not None:
            raise self._error
        taken = self.buffer.take(limit)
        self._changed.set()
        return taken

    def close(self, error: BaseException | None = None) -> None:
        """End the channel: events in the buffer can still be taken; `take` raises `error` after them."""
        self._closed, self._error = True, error
        self._changed.set()
