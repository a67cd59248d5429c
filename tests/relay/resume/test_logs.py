"""The logs of streams: a client gets all events after its last one or an error, and all of them together have a bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.errors import ApiError, BadRequestError, StreamExpiredError, StreamNotFoundError
from relay.resume.ids import new_stream_id, parse_position
from relay.resume.log import EVENT_OVERHEAD_BYTES, StreamLog
from relay.resume.logs import MAX_REMEMBERED, Bounds, StreamLogs

SMALL = Bounds(stream_bytes=1000, max_bytes=2500, keep_seconds=10.0)


def event(number: int, size: int = 0) -> bytes:
    return b"data: %d%b" % (number, b"x" * size)


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(0, 40), st.integers(0, 500))
def test_reading_page_by_page_gives_every_event_once(sizes: list[int], forgotten: int, page: int) -> None:
    log = StreamLog("s", "")
    for number, size in enumerate(sizes, 1):
        log.append((event(number, size),))
    for _ in range(min(forgotten, len(log))):
        log.forget_oldest()
    assert log.held == log.bytes_after(log.first - 1) == log.bytes_after(0)
    read, after = [], log.first - 1
    while after < log.last:
        events = log.read(after, page)
        assert events
        assert len(events) == 1 or sum(map(len, events)) + EVENT_OVERHEAD_BYTES * len(events) <= page
        read += events
        after += len(events)
    assert read == [event(number, size) for number, size in enumerate(sizes, 1)][log.first - 1 :]
    assert log.place(log.last) == "kept"
    assert log.place(log.last + 1) == "future"
    assert log.place(log.first - 1) == "kept"
    assert log.first == 1 or log.place(log.first - 2) == "dropped"


class LogsOfManyStreams(RuleBasedStateMachine):
    """Streams that begin, grow, end and are forgotten, beside a model that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.dropped: list[StreamLog] = []
        self.logs = StreamLogs(SMALL, self.dropped.append)
        self.sent: dict[str, list[bytes]] = {}
        self.running: list[StreamLog] = []
        self.all: list[StreamLog] = []
        self.partial = 0

    @rule(caller=st.sampled_from("ab"))
    def begins(self, caller: str) -> None:
        log = self.logs.begin(caller)
        self.running.append(log)
        self.all.append(log)
        self.sent[log.id] = []

    @precondition(lambda self: self.running)
    @rule(data=st.data(), size=st.integers(0, 1200))
    def grows(self, data: st.DataObject, size: int) -> None:
        log = data.draw(st.sampled_from(self.running))
        self.sent[log.id].append(event(len(self.sent[log.id]) + 1, size))
        self.logs.append(log, self.sent[log.id][-1:])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), discard=st.booleans())
    def ends(self, data: st.DataObject, discard: bool) -> None:
        log = data.draw(st.sampled_from(self.running))
        self.running.remove(log)
        if discard:
            self.logs.discard(log)
            self.all.remove(log)
        else:
            self.logs.name(log, f"resp_{len(self.all)}", 1)
            self.logs.end(log, self.now, failed=False)

    @rule(size=st.integers(0, 1000))
    def holds_an_unfinished_event(self, size: int) -> None:
        self.logs.charge(size - self.partial)
        self.partial = size

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.logs.tidy(self.now)

    @invariant()
    def the_bytes_are_those_of_the_logs_and_within_the_bound(self) -> None:
        assert self.logs.held == sum(log.held for log in self.all) + self.partial
        assert self.logs.held <= SMALL.max_bytes
        assert all(log.held <= SMALL.stream_bytes for log in self.all)

    @invariant()
    def a_client_gets_all_that_it_misses_or_an_error(self) -> None:
        for log in self.all:
            sent = self.sent[log.id]
            with pytest.raises(StreamNotFoundError):
                self.logs.find(log.id, "another", 0)
            for after in range(len(sent) + 2):
                try:
                    found = self.logs.find(log.id, log.caller, after)
                except BadRequestError:
                    assert after > len(sent)
                except (StreamExpiredError, StreamNotFoundError):
                    assert len(log) < len(sent) or not sent
                else:
                    assert found.read(after, 10**9) == sent[after:]

    def teardown(self) -> None:
        for log in self.running:
            self.logs.end(log, self.now, failed=True)
        self.logs.charge(-self.partial)
        self.logs.tidy(self.now + SMALL.keep_seconds)
        assert self.logs.held == len(self.logs) == 0
        self.logs.tidy(self.now + 3 * SMALL.keep_seconds)
        assert not any(vars(self.logs)[name] for name in ("_running", "_ended", "_gone", "_responses", "_named"))


TestLogsOfManyStreams = LogsOfManyStreams.TestCase


def refused(logs: StreamLogs, *words: Any) -> type[ApiError]:
    with pytest.raises(ApiError) as error:
        logs.find(*words)
    return type(error.value)


def test_a_stream_that_is_gone_is_told_from_one_that_never_was() -> None:
    logs = StreamLogs(SMALL)
    log = logs.begin("a")
    logs.append(log, [event(1)])
    logs.end(log, 100.0, failed=False)
    logs.tidy(109.9)
    assert logs.find(log.id, "a", 0) is log
    logs.tidy(110.0)
    assert refused(logs, log.id, "a", 0) is StreamExpiredError
    assert refused(logs, log.id, "b", 0) is StreamNotFoundError
    logs.tidy(120.0)
    assert refused(logs, log.id, "a", 0) is StreamNotFoundError
    assert refused(logs, new_stream_id(), "a", 0) is StreamNotFoundError


def test_what_is_remembered_of_streams_that_are_gone_has_a_bound() -> None:
    logs = StreamLogs(SMALL)
    first = None
    for _ in range(MAX_REMEMBERED + 1):
        log = logs.begin("")
        first = first or log.id
        logs.end(log, 0.0, failed=False)
    logs.tidy(10.0)
    assert refused(logs, first, "", 0) is StreamNotFoundError
    assert refused(logs, log.id, "", 0) is StreamExpiredError


def test_ended_streams_make_room_before_running_ones_do() -> None:
    dropped: list[StreamLog] = []
    logs = StreamLogs(SMALL, dropped.append)
    running, ended, last = (logs.begin("") for _ in range(3))
    for log in (running, ended, last):
        logs.append(log, [event(1, 740)])
    logs.end(ended, 0.0, failed=False)
    logs.append(running, [event(2, 100)])
    assert dropped == [ended]
    assert (running.first, last.first, len(logs)) == (1, 1, 2)


def test_the_newer_of_two_responses_of_one_id_has_it_and_callers_have_their_own() -> None:
    logs = StreamLogs(SMALL)
    first, second, foreign = logs.begin("a"), logs.begin("a"), logs.begin("b")
    for log in (first, second, foreign):
        logs.name(log, "resp_1", 1)
    assert logs.of_response("resp_1", "a") == (second.id, 1)
    assert logs.of_response("resp_1", "b") == (foreign.id, 1)
    for log in (first, second):
        logs.end(log, 0.0, failed=False)
    logs.tidy(10.0)
    assert logs.of_response("resp_1", "a") is None
    assert logs.of_response("resp_1", "b") == (foreign.id, 1)


def test_positions() -> None:
    stream = new_stream_id()
    assert parse_position(f"{stream}:12") == (stream, 12)
    for text in (
        "",
        stream,
        f"{stream}:",
        f"{stream}:-1",
        f"{stream}:1 ",
        f"{stream}:" + 16 * "9",
        f"{stream}x:1",
        f"{stream}:١",
        "12-0",
    ):
        assert parse_position(text) is None, text
