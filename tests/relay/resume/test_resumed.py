"""A client that follows a kept stream: whatever has room is written at once, in any order of events, reads and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics import StreamLedger
from relay.client.reply import Reply
from relay.resume.log import StreamLog
from relay.resume.logs import Bounds, StreamLogs
from relay.resume.numbering import Numbering
from relay.resume.redis_log import Entry
from relay.resume.resumed import ResumedLife
from relay.resume.store import Followed
from relay.resume.tails import TAIL_BYTES, Tails
from relay.stream.patience import Limits
from relay.stream.sweep import OpenStreams

# What one write gives to the connection, and what the connection takes before it is full.
WRITE_BYTES = 1000
ROOM_BYTES = 2500
# Much smaller than a write, about one, of several writes, more than the connection takes.
SIZES = st.sampled_from([1, 50, 900, 1100, 2600, 7000, TAIL_BYTES + 1])
STEPS = st.lists(
    st.tuples(st.just("event"), st.lists(SIZES, min_size=1, max_size=4)) | st.just(("take", [])), max_size=30
)
FOREVER = Limits(0, 0, 0)


class Connection:
    """A client.client.Client whose peer reads when it is told to."""

    def __init__(self) -> None:
        self.written = b""
        self._unread = 0
        self._listener: Any = None

    @property
    def full(self) -> bool:
        return self._unread > ROOM_BYTES

    def listen(self, listener: Any) -> None:
        self._listener = listener

    def writer(self, hold: Callable[[int], None]) -> Callable[[bytes], None]:
        def write(chunk: bytes) -> None:
            assert not self.full, "written to a connection that is full"
            self.written += chunk
            self._unread += len(chunk)

        return write

    def take(self) -> None:
        """The peer reads all that was written: a connection tells so only where it was full."""
        was_full, self._unread = self.full, 0
        if was_full and self._listener is not None:
            self._listener.resumed()

    def unsent(self) -> int | None:
        return self._unread or None

    async def room(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    async def gone(self) -> None:
        raise NotImplementedError


class Stream:
    """Where the events come from; `log` is what the client follows."""

    def __init__(self) -> None:
        self.logs = StreamLogs(Bounds(1 << 30, 1 << 30, 60.0))
        self.log = self.logs.begin("")
        self.followed = Followed(self.log, own=True, taken=lambda number: None)

    def append(self, events: list[bytes]) -> None:
        self.logs.append(self.log, events)

    def end(self) -> None:
        self.logs.end(self.log, 0.0, failed=False)

    def read(self) -> None:
        """What came is in the log already."""


class StreamElsewhere(Stream):
    """Another relay's: the client's tail of it is given entries for as long as it wants more."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[Entry] = []
        self._following = Tails(None, self.logs).following("s", "", 0)  # type: ignore[arg-type]  # nothing is read there
        self._tail = self._following.__enter__()
        self.followed = Followed(self._tail.log, own=False, taken=self._tail.taken)

    def append(self, events: list[bytes]) -> None:
        first = len(self._entries) + 1
        self._entries += [Entry(number, event, "") for number, event in enumerate(events, first)]

    def end(self) -> None:
        self._entries.append(Entry(len(self._entries) + 1, b"", "ok"))

    def read(self) -> None:
        while self._tail.wants_more and self._tail.log.last < len(self._entries):
            before = self._tail.log.last
            self._tail.give(self._entries[before:])
            if self._tail.log.last == before:
                return


def frames(log: StreamLog, events: list[bytes]) -> bytes:
    numbering = Numbering(log.id)
    return b"".join(numbering.frame(event, number) for number, event in enumerate(events, 1))


@pytest.mark.parametrize("kind", [Stream, StreamElsewhere])
@given(STEPS)
def test_what_has_room_is_written_at_once_and_all_of_it_in_the_end(
    kind: type[Stream], steps: list[tuple[str, list[int]]]
) -> None:
    async def run() -> None:
        stream, connection, events = kind(), Connection(), []
        open_streams, told = OpenStreams(), []

        async def send(message: Any) -> None:
            assert message["type"] in ("http.response.start", "http.response.body")

        async def serve() -> None:
            with StreamLedger().stream("/x") as record:
                life = ResumedLife(stream.followed, 0, connection, FOREVER, WRITE_BYTES, lambda *_: None, 1 << 30)
                await life.serve(record, Reply(send, connection, record), {}, open_streams, told.append)

        serving = asyncio.create_task(serve())
        await asyncio.sleep(0)
        for step, sizes in steps:
            if step == "take":
                connection.take()
            else:
                new = [b"data: %b\n\n" % (b"x" * size) for size in sizes]
                events += new
                stream.append(new)
            stream.read()
            if not connection.full:
                assert connection.written == frames(stream.followed.log, events)
        stream.end()
        stream.read()
        for _ in range(len(events) * (TAIL_BYTES // ROOM_BYTES + 2) + 1):
            connection.take()
            stream.read()
        await asyncio.wait_for(serving, 10)
        assert connection.written == frames(stream.followed.log, events)
        assert [ending.outcome for ending in told] == ["completed"]

    asyncio.run(run())
