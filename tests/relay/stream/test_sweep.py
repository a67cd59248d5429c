"""The sweep looks at every stream once in each interval, at a few at a time, and keeps no reference to any."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

from relay.stream.patience import Limits
from relay.stream.sweep import MIN_SECONDS, SLICE, OpenStreams, sweep

LIMITS = Limits(read=60, write=30, heartbeat=MIN_SECONDS)  # as often as it can
STREAMS = 10 * SLICE


class Stream:
    """Tells of each look."""

    def __init__(self, looked: Callable[[Stream], None] = lambda _: None) -> None:
        self.looks = 0
        self.ended: list[str] = []
        self._looked = looked

    def look_after(self, now: float) -> None:
        self.looks += 1
        self._looked(self)

    def end(self, outcome: str) -> None:
        self.ended.append(outcome)


async def swept(streams: OpenStreams, until: Callable[[], bool]) -> None:
    sweeping = asyncio.create_task(sweep(streams, LIMITS))
    async with asyncio.timeout(60):
        while not until():
            await asyncio.sleep(0.005)
    sweeping.cancel()
    await asyncio.wait([sweeping])


def test_every_stream_is_looked_at_equally_often_and_a_few_in_one_go() -> None:
    turns: list[int] = []  # for each look, the turn of the loop that it was in
    turn = 0

    async def run() -> None:
        nonlocal turn
        streams = OpenStreams()
        all_of_them = [Stream(lambda _: turns.append(turn)) for _ in range(STREAMS)]
        for stream in all_of_them:
            streams.add(stream)
        sweeping = asyncio.create_task(sweep(streams, LIMITS))
        async with asyncio.timeout(60):
            while len(turns) < 3 * STREAMS:
                turn += 1
                await asyncio.sleep(0)
        sweeping.cancel()
        await asyncio.wait([sweeping])
        looks = {stream.looks for stream in all_of_them}
        assert max(looks) - min(looks) <= 1, looks
        assert min(looks) >= 2, looks

    asyncio.run(run())
    assert max(turns.count(each) for each in set(turns)) == SLICE


def test_a_stream_that_has_ended_is_not_looked_at() -> None:
    async def run() -> None:
        streams = OpenStreams()
        last = Stream()
        first = Stream(lambda _: streams.discard(last))
        others = [Stream() for _ in range(STREAMS)]
        for stream in (first, *others, last):
            streams.add(stream)
        await swept(streams, lambda: others[-1].looks > 1)
        assert first.looks
        assert not last.looks
        assert len(streams) == STREAMS + 1

    asyncio.run(run())


def test_the_sweep_keeps_no_stream_between_its_slices() -> None:
    async def run() -> None:
        streams = OpenStreams()
        others = [Stream() for _ in range(SLICE)]
        last = Stream()
        for stream in (*others, last):
            streams.add(stream)
        gone = weakref.ref(last)
        sweeping = asyncio.create_task(sweep(streams, LIMITS))
        async with asyncio.timeout(60):
            while not others[0].looks:
                await asyncio.sleep(0)
        streams.discard(last)
        del stream, last
        assert gone() is None  # the sweep is between its first slice and the last
        sweeping.cancel()
        await asyncio.wait([sweeping])

    asyncio.run(run())


def test_one_that_cannot_be_looked_after_is_ended_and_the_others_are_looked_after() -> None:
    def fails(_: Stream) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        streams = OpenStreams()
        bad, good = Stream(fails), Stream()
        streams.add(bad)
        streams.add(good)
        await swept(streams, lambda: good.looks > 1)
        assert set(bad.ended) == {"shutdown"}
        assert not good.ended

    asyncio.run(run())
