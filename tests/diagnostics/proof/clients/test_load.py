"""The clients do what their names say, against a real server whose answers are known to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.proof.clients.address import Request, RequestMessage
from diagnostics.proof.clients.eventscan import EventCount
from diagnostics.proof.clients.load import LoadReport, run_load
from diagnostics.proof.clients.mix import Fast, Leaves, Mix, NeverReads, Resets, Slow
from tests.scripted import listening

EVENT = b"data: " + b"x" * 1000 + b"\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def ten_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"".join(chunk(EVENT) for _ in range(10)) + b"0\r\n\r\n")


async def without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    while True:
        writer.write(chunk(EVENT))
        await writer.drain()
        await asyncio.sleep(0.001)


class Server:
    """Answers each request with a handler, and knows what it wrote to whom."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[bytes] = []
        self.open = 0
        self.stuck = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            with suppress(ConnectionError):
                await self.handler(reader, writer)
                await writer.drain()
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def load(
    handler: Handler,
    mix: Mix,
    *,
    seconds: float = 60.0,
    tell_after: float | None = None,
    tell_when: Callable[[LoadReport], bool] = lambda report: False,
    finish: Callable[[float], float] = lambda longest: 0.0,
) -> tuple[LoadReport, Server]:
    server = Server(handler)

    async def main() -> LoadReport:
        async with listening(server) as port:
            until = asyncio.Event()
            if tell_after is not None:
                asyncio.get_running_loop().call_later(tell_after, until.set)
            request, report = Request("/stream", RequestMessage("POST", b"{}")), LoadReport()

            async def watch() -> None:
                while not tell_when(report):
                    await asyncio.sleep(0.01)
                until.set()

            watching = asyncio.create_task(watch())
            await run_load(
                "127.0.0.1", port, request, mix, until=until, most_seconds=seconds, finish=finish, seed=3, report=report
            )
            watching.cancel()
            async with asyncio.timeout(60):
                while server.open:
                    await asyncio.sleep(0.01)
        return report

    return asyncio.run(main()), server


def test_a_fast_client_reads_every_event_to_the_end() -> None:
    report, server = load(ten_events, Mix(((Fast(), 3),)))
    assert report.streams == 3
    assert report.events == 30
    assert report.outcomes == {"completed": 3}
    assert not report.errors
    assert server.requests[0].startswith(b"POST /stream HTTP/1.1\r\n")


def test_one_who_leaves_has_read_as_many_events_as_he_wanted_and_closes() -> None:
    report, server = load(without_end, Mix(((Leaves(after_events=5), 2),)))
    assert report.outcomes == {"left": 2}
    assert report.events >= 10
    assert server.open == 0


def test_one_who_loses_his_network_resets_the_connection() -> None:
    seen: list[str] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(HEAD + chunk(EVENT))
        try:
            await reader.read()
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    report, _ = load(handler, Mix(((Resets(after_seconds=0.1), 2),)))
    assert seen == ["reset", "reset"]
    assert report.outcomes == {"left": 2}
    assert not report.errors


def test_an_answer_that_ends_before_its_reset_is_complete() -> None:
    report, _ = load(ten_events, Mix(((Resets(after_seconds=5), 1),)))
    assert report.outcomes == {"completed": 1}


@pytest.mark.parametrize("status", [429, 503])
def test_turned_away_is_an_outcome_of_its_own(status: int) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 %d Later\r\ncontent-length: 0\r\n\r\n" % status)

    report, _ = load(handler, Mix(((Fast(), 2),)))
    assert report.outcomes == {"rejected": 2}
    assert report.errors == {f"status_{status}": 2}


def test_streams_that_end_by_themselves_may_do_so_when_the_load_is_over() -> None:
    """One that is cut off may leave behind less than a whole one: it would dilute what each leaves."""

    async def unhurried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(5):
            writer.write(chunk(EVENT))
            await asyncio.sleep(0.04)
        writer.write(b"0\r\n\r\n")

    report, server = load(
        unhurried,
        Mix(((Fast(), 4),), again=True),
        tell_when=lambda report: report.outcomes["completed"] >= 6,
        finish=lambda longest: 60.0,
    )
    assert set(report.outcomes) == {"completed"}
    assert report.streams == report.ended == len(server.requests)
    assert 0.2 <= report.longest < 60
    cut, _ = load(without_end, Mix(((Fast(), 2),), again=True), tell_after=0.1, finish=lambda longest: longest * 2)
    assert (cut.outcomes, cut.longest) == ({"time_up": 2}, 0.0)


def test_a_report_that_is_given_is_filled_while_the_load_runs() -> None:
    async def main() -> tuple[int, LoadReport, LoadReport]:
        async with listening(Server(without_end)) as port:
            until, mine = asyncio.Event(), LoadReport()
            running = asyncio.create_task(
                run_load(
                    "127.0.0.1",
                    port,
                    Request("/"),
                    Mix(((Fast(), 1),)),
                    until=until,
                    most_seconds=9,
                    report=mine,
                )
            )
            while not mine.events:
                await asyncio.sleep(0.01)
            seen = mine.events
            until.set()
            return seen, mine, await running

    seen, mine, returned = asyncio.run(main())
    assert seen > 0
    assert returned is mine


def test_a_report_shows_a_behavior_by_its_name_and_by_what_it_was_given() -> None:
    everyone = (
        (Fast(), "Fast", {}),
        (Slow(bytes_per_second=9), "Slow", {"bytes_per_second": 9, "receive_buffer_bytes": 4096}),
        (Leaves(after_events=2), "Leaves", {"after_events": 2}),
        (Resets(after_seconds=0.5), "Resets", {"after_seconds": 0.5}),
        (NeverReads(), "NeverReads", {"receive_buffer_bytes": 4096}),
    )
    for behavior, kind, parameters in everyone:
        assert (behavior.kind, behavior.parameters()) == (kind, parameters)


def test_a_slow_reader_keeps_his_pace_and_leaves_the_rest_to_the_server() -> None:
    report, _ = load(without_end, Mix(((Slow(bytes_per_second=10_000), 1),)), tell_after=1.0)
    assert report.outcomes == {"time_up": 1}
    # The first step comes at once; then he has at most one step more than his pace gives.
    assert 1000 <= report.bytes <= 10_000 * report.seconds + 2_000


def test_one_who_never_reads_fills_the_servers_buffers_and_nothing_else() -> None:
    waiting: list[int] = []
    # 4 MB are written; had the client's receive buffer been set after the connect, the kernel would hold most of them.

    async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(1, 7, 16 * 1024)  # SOL_SOCKET, SO_SNDBUF
        writer.write(HEAD + chunk(EVENT * 4000))
        await asyncio.sleep(0.3)
        waiting.append(writer.transport.get_write_buffer_size())
        writer.transport.abort()

    report, _ = load(much, Mix(((NeverReads(), 1),)), tell_when=lambda report: bool(waiting))
    assert report.bytes == 0
    assert waiting[0] > 3_500_000


def test_everyone_stops_when_told_and_no_later_than_agreed() -> None:
    everyone = Mix(((Fast(), 2), (NeverReads(), 1)))
    told, _ = load(without_end, everyone, tell_when=lambda report: report.streams == 3 and report.events > 0)
    assert told.outcomes["time_up"] == 3  # else nothing would have ended them
    late, _ = load(without_end, Mix(((NeverReads(), 1),)), seconds=0.2)
    assert late.outcomes == {"time_up": 1}


def test_again_opens_one_stream_after_the_other() -> None:
    report, _ = load(ten_events, Mix(((Fast(), 2),), again=True), tell_when=lambda report: report.streams > 4)
    assert report.streams > 4
    assert report.events >= 10 * report.outcomes["completed"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "status_500"),
        (b"HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n", "status_401"),
        (b"HTTP/1.1 302 There\r\ncontent-length: 0\r\n\r\n", "status_302"),
        (b"HELLO\r\n\r\n", "malformed"),
        (HEAD + chunk(EVENT), "cut_off"),
        (b"", "cut_off"),
    ],
)
def test_what_fails_is_counted_by_its_kind(answer: bytes, error: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)  # the body: closing with unread bytes would be a reset
        writer.write(answer)

    report, _ = load(handler, Mix(((Fast(), 2),)))
    assert report.outcomes == {"failed": 2}
    assert report.errors == {error: 2}


def test_nobody_listening_is_a_connect_error() -> None:
    async def main() -> LoadReport:
        mix = Mix(((Fast(), 2),))
        return await run_load("127.0.0.1", 1, Request("/"), mix, until=asyncio.Event(), most_seconds=5)

    assert asyncio.run(main()).errors == {"connect": 2}


@given(
    st.lists(
        st.sampled_from([b"data: a\n", b"data: b\r\n", b"id: 1\r", b"\n", b"\r\n", b"\r", b": ping\n"]), max_size=20
    ),
    st.lists(st.integers(0, 120), max_size=8),
)
def test_events_are_counted_alike_wherever_the_bytes_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(lines)
    whole, piecewise, bytewise = EventCount(), EventCount(), EventCount()
    whole.feed(data)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in pairwise(places):
        piecewise.feed(data[start:end])
    for byte in data:
        bytewise.feed(bytes([byte]))
    assert whole.events == piecewise.events == bytewise.events


@given(st.lists(st.sampled_from([b"data: a\n", b"\n", b"data: b\n\n"]), max_size=30), st.integers(0, 200))
def test_line_feeds_alone_are_counted_as_by_their_definition(lines: list[bytes], cut: int) -> None:
    """Where there is no CR, most events are counted at once; wherever that begins, the count is the same."""
    data = b"".join(lines)
    count = EventCount()
    count.feed(data[:cut])
    count.feed(data[cut:])
    assert count.events == sum(1 for part in data.split(b"\n\n")[:-1] if part.strip(b"\n"))


def test_blank_lines_between_events_are_no_events() -> None:
    count = EventCount()
    count.feed(b"\n\ndata: 1\n\n\n\ndata: 2\r\n\r\ndata: unfinished\n")
    assert count.events == 2
