"""The buffer against a model: never over its capacity, never a split event, every loss counted, every segment given back."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.memory.buffer import POLICIES, ByteBuffer, Channel, EventBuffer, OverflowPolicy, SegmentPool, SharedBuffer

SEGMENT = 8


class Buffers(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 40), policy=st.sampled_from(POLICIES), copies=st.booleans())
    def begin(self, capacity: int, policy: OverflowPolicy, copies: bool) -> None:
        self.pool = SegmentPool(SEGMENT, max_free=2)
        self.buffer = ByteBuffer(capacity, policy, self.pool) if copies else SharedBuffer(capacity, policy)
        self.model: deque[bytes] = deque()
        self.lost = 0
        self.number = 0

    @rule(size=st.integers(1, 45))
    def put(self, size: int) -> None:
        self.number += 1
        event = bytes((self.number + place) % 256 for place in range(size))
        buffer = self.buffer
        if size > buffer.capacity:
            with pytest.raises(ValueError, match="never fits"):
                buffer.put(event)
            return
        room = buffer.capacity - sum(map(len, self.model)) >= size
        if not room and buffer.policy == "disconnect":
            with pytest.raises(OverflowError):
                buffer.put(event)
            return
        assert buffer.put(event) == (room or buffer.policy != "block")
        self._put_into_model(event, room)

    def _put_into_model(self, event: bytes, room: bool) -> None:
        policy = self.buffer.policy
        if policy == "latest":
            self.lost += len(self.model)
            self.model.clear()
        elif not room and policy == "block":
            return
        elif not room and policy == "drop_newest":
            self.lost += 1
            return
        while sum(map(len, self.model)) + len(event) > self.buffer.capacity:
            self.model.popleft()
            self.lost += 1
        self.model.append(event)

    @rule(limit=st.none() | st.integers(1, 50))
    def take(self, limit: int | None) -> None:
        expected = b""
        while self.model and (not expected or limit is None or len(expected) + len(self.model[0]) <= limit):
            expected += self.model.popleft()
        assert self.buffer.take(limit) == expected

    @rule()
    def clear(self) -> None:
        self.buffer.clear()
        self.model.clear()

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.buffer.clear()
            assert self.pool.statistics().used == 0

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "buffer"):
            return
        buffer = self.buffer
        assert len(buffer) == len(self.model)
        assert buffer.held == sum(map(len, self.model)) <= buffer.high_water <= buffer.capacity
        assert buffer.dropped == self.lost
        # One segment may be begun at each end; an empty buffer holds none.
        assert self.pool.statistics().used <= (buffer.held // SEGMENT + 2 if buffer.held else 0)
        assert self.pool.statistics().free <= 2


Buffers.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestBuffers = Buffers.TestCase


def test_a_pool_serves_the_next_stream_from_the_last_ones_segments() -> None:
    pool = SegmentPool(SEGMENT)
    for _ in range(10):
        buffer = ByteBuffer(100, "block", pool)
        buffer.put(b"x" * 30)
        buffer.clear()
    assert pool.statistics() == (0, 4, 36, 4)


def test_what_many_wait_for_is_held_once() -> None:
    event = b"x" * 10_000
    tracemalloc.start()
    buffers: list[EventBuffer] = [SharedBuffer(20_000, "block") for _ in range(1000)]
    before = tracemalloc.get_traced_memory()[0]
    for buffer in buffers:
        buffer.put(event)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert sum(buffer.held for buffer in buffers) == 10_000_000
    assert held < 1_000_000  # a deque for each: copies would be ten million
    assert all(buffer.take() is event for buffer in buffers)


def test_an_empty_event_is_refused() -> None:
    """`take` could not tell it from none, and a channel would take it for the end."""
    for buffer in (ByteBuffer(10, "block", SegmentPool()), SharedBuffer(10, "block")):
        with pytest.raises(ValueError, match="at least one byte"):
            buffer.put(b"")


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match=r"'spill'.*drop_oldest"):
        ByteBuffer(1, "spill", SegmentPool())  # type: ignore[arg-type]


def test_a_producer_waits_for_its_consumer_and_nothing_is_lost() -> None:
    events = [b"%d;" % number for number in range(500)]

    async def main() -> tuple[list[bytes], int]:
        channel = Channel(ByteBuffer(16, "block", SegmentPool(SEGMENT)))

        async def produce() -> None:
            for event in events:
                await channel.put(event)
            channel.close()

        producer = asyncio.create_task(produce())
        got = []
        while taken := await channel.take(limit=10):
            got.append(taken)
        await producer
        return got, channel.buffer.high_water

    got, high_water = asyncio.run(main())
    assert b"".join(got) == b"".join(events)
    assert high_water <= 16


def test_what_was_put_before_a_failure_comes_out_first() -> None:
    async def main() -> None:
        channel = Channel(ByteBuffer(16, "block", SegmentPool()))
        await channel.put(b"last words")
        channel.close(ConnectionError("gone"))
        assert await channel.take() == b"last words"
        with pytest.raises(ConnectionError, match="gone"):
            await channel.take()

    asyncio.run(main())
