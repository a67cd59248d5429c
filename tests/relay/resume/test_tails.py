"""Clients that follow one stream of another relay from different places: each gets every event after its own last one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from relay.errors import ApiError
from relay.resume.logs import Bounds, StreamLogs
from relay.resume.redis_log import Entry
from relay.resume.tails import TAIL_BYTES, Tail, Tails

STREAM = "s" * 20
EVENTS = 200


class Log:
    """The stream, all of whose entries are there; what is read is handed over when `go_on` is set."""

    def __init__(self, size: int) -> None:
        self._entries = [Entry(number, b"e" * size, "") for number in range(1, EVENTS + 1)]
        self._entries.append(Entry(EVENTS + 1, b"", "ok"))
        self.go_on = asyncio.Event()
        self.reads = 0

    async def read(self, after: Mapping[str, int]) -> dict[str, list[Entry]]:
        self.reads += 1
        found = {stream: self._entries[number : number + 64] for stream, number in after.items()}
        await self.go_on.wait()
        await asyncio.sleep(0)
        return found


class Client:
    """Follows a tail, and takes events when it is told to."""

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.numbers: list[int] = []
        self.error: ApiError | None = None
        tail.log.followers[self] = None

    def offer(self, event: bytes, number: int) -> None:
        self.numbers.append(number)

    def ended(self) -> None:
        pass

    def broken(self, error: ApiError) -> None:
        self.error = error

    def take(self) -> None:
        self.tail.taken(self.numbers[-1] if self.numbers else 0)


@pytest.mark.parametrize("size", [10, 4000], ids=["all fit", "more than waits for one client"])
def test_each_gets_all_after_its_own_last_event_whoever_is_there(size: int) -> None:
    asyncio.run(follow_from_two_places(size))


async def follow_from_two_places(size: int) -> None:
    log, logs = Log(size), StreamLogs(Bounds(1 << 30, 1 << 30, 60))
    tails = Tails(log, logs)  # type: ignore[arg-type]  # the reader asks for nothing else
    reading = asyncio.create_task(tails.read())
    with ExitStack() as following:

        def follow(after: int) -> Client:
            return Client(following.enter_context(tails.following(STREAM, "", after)))

        ahead = follow(150)
        while not log.reads:
            await asyncio.sleep(0)
        behind = follow(0)  # while it is read after 150 for the other one
        log.go_on.set()
        for turn in range(1000):
            await asyncio.sleep(0)
            ahead.take()
            assert behind.tail.log.held <= TAIL_BYTES + size + 64, "it takes nothing for now: no more is read for it"
            if turn > 300:  # ... though the other one has gone on to the end
                behind.take()
        for client, after in ((ahead, 150), (behind, 0)):
            assert client.error is None
            assert client.numbers == list(range(after + 1, EVENTS + 1))
            assert client.tail.log.is_over
    reading.cancel()
    await asyncio.wait([reading])
    assert logs.held == 0
