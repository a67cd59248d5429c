from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.agent.histogram import Histogram
from diagnostics.agent.ledger import MAX_ROUTES, OTHER_ROUTE, StreamLedger
from diagnostics.agent.record import OUTCOMES


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def totals(ledger: StreamLedger, route: str = "/s") -> dict[str, Any]:
    return ledger.to_json()["routes"][route]


def test_an_open_stream_is_counted_while_it_is_open_and_only_then() -> None:
    ledger = StreamLedger()
    with ledger.stream("/s") as stream:
        stream.received(70, events=2)
        stream.hold(70)
        stream.release(20)
        stream.sent(20, events=1)
        now = ledger.to_json()
        assert (now["open"], now["buffered_bytes"], now["buffered_bytes_max"]) == (1, 50, 50)
        assert now["routes"]["/s"]["bytes_in"] == 70
        assert now["top"][0]["buffered_high_water"] == 70
        stream.release(50)
    after = totals(ledger)
    assert (after["open"], after["buffered_bytes"], after["bytes_in"], after["bytes_out"]) == (0, 0, 70, 20)
    assert (after["events_in"], after["events_out"]) == (2, 1)
    assert after["closed"]["completed"] == 1
    assert ledger.records == {}


def test_times_are_told_apart_by_what_they_are_times_of() -> None:
    clock = Clock()
    ledger = StreamLedger(clock)
    with ledger.stream("/s") as stream:
        clock.now += 0.2
        stream.sent(5, events=1)
        clock.now += 0.03
        stream.sent(5, events=1)
        stream.waits()
        clock.now += 2.0
        assert stream.state == "blocked"
        stream.goes_on()
        assert stream.state == "streaming"
        stream.disconnected()
        clock.now += 0.01
        stream.upstream_closed()
    row = totals(ledger)
    assert row["time_to_first_event"]["sum"] == pytest.approx(0.2)
    assert row["inter_event"]["sum"] == pytest.approx(0.03)
    assert row["backpressure_seconds"] == pytest.approx(2.0)
    assert row["disconnect_to_upstream_close"]["sum"] == pytest.approx(0.01)
    assert row["duration"]["sum"] == pytest.approx(2.24)


def test_a_wait_is_counted_while_it_lasts_and_stays_counted() -> None:
    clock = Clock()
    ledger = StreamLedger(clock)
    stream = ledger.open("/s")
    stream.waits()
    seen = []
    for step in (0.0005, 10.0, 20.0):
        clock.now += step
        seen.append(totals(ledger)["backpressure_seconds"])
        assert ledger.to_json()["top"][0]["backpressure_seconds"] == seen[-1]
    stream.close("client_disconnected")  # it never took them
    seen.append(totals(ledger)["backpressure_seconds"])
    assert seen == pytest.approx([0.0, 10.0005, 30.0005, 30.0005])


def test_a_send_that_did_not_wait_is_no_backpressure() -> None:
    clock = Clock()
    ledger = StreamLedger(clock)
    with ledger.stream("/s") as stream:
        for _ in range(1000):
            stream.waits()
            clock.now += 0.0005
            stream.goes_on()
    assert totals(ledger)["backpressure_seconds"] == 0.0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("upstream broke"), "upstream_error"),
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "shutdown"),
        (GeneratorExit(), "client_disconnected"),
    ],
)
def test_the_outcome_follows_what_ended_the_block(error: BaseException, outcome: str) -> None:
    ledger = StreamLedger()
    with pytest.raises(type(error)), ledger.stream("/s"):
        raise error
    assert totals(ledger)["closed"][outcome] == 1


def test_the_first_outcome_named_stays() -> None:
    ledger = StreamLedger()
    with ledger.stream("/s") as stream:
        stream.ends("slow_client")
        stream.ends("upstream_error")
    assert totals(ledger)["closed"]["slow_client"] == 1
    assert sum(totals(ledger)["closed"].values()) == 1


def test_an_unknown_outcome_is_refused() -> None:
    with StreamLedger().stream("/s") as stream, pytest.raises(ValueError, match="unknown outcome 'fine'"):
        stream.ends("fine")


def test_a_pool_is_told_of_where_there_is_one() -> None:
    ledger = StreamLedger()
    assert ledger.to_json()["pool"] is None
    ledger.pool = lambda: (3, 1, 10, 4)
    assert ledger.to_json()["pool"] == {"used": 3, "free": 1, "hits": 10, "misses": 4}


def test_hostile_route_names_cannot_grow_the_ledger() -> None:
    ledger = StreamLedger()
    for number in range(10 * MAX_ROUTES):
        with ledger.stream(f"/user/{number}"):
            pass
    routes = ledger.to_json()["routes"]
    assert len(routes) == MAX_ROUTES + 1
    assert sum(row["closed"]["completed"] for row in routes.values()) == 10 * MAX_ROUTES
    assert routes[OTHER_ROUTE]["closed"]["completed"] > 0


def test_the_largest_streams_come_first() -> None:
    ledger = StreamLedger()
    for held in (5, 30, 10, 20):
        ledger.open("/s").hold(held)
    assert [row["buffered_bytes"] for row in ledger.to_json(top=3)["top"]] == [30, 20, 10]
    assert ledger.to_json(top=3)["open"] == 4


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 10**6), st.sampled_from(OUTCOMES), st.booleans()), max_size=30
    )
)
def test_nothing_is_lost_or_counted_twice(streams: list[tuple[str, int, str, bool]]) -> None:
    ledger = StreamLedger()
    for route, nbytes, outcome, ends in streams:
        record = ledger.open(route)
        record.received(nbytes, events=1)
        record.hold(nbytes)
        if ends:
            record.close(outcome)
            record.close("completed")
    now = ledger.to_json()
    still_open = [nbytes for _, nbytes, _, ends in streams if not ends]
    assert now["open"] == len(still_open)
    assert now["buffered_bytes"] == sum(still_open)
    assert sum(row["bytes_in"] for row in now["routes"].values()) == sum(nbytes for _, nbytes, _, _ in streams)
    for outcome in OUTCOMES:
        assert sum(row["closed"][outcome] for row in now["routes"].values()) == sum(
            ends and named == outcome for _, _, named, ends in streams
        )


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_each_observation_once(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    assert sum(histogram.counts) == len(values)
    assert histogram.counts[0] == sum(value <= 0.5 for value in values)
    assert histogram.counts[-1] == sum(value > 10 for value in values)
    assert histogram.total == pytest.approx(sum(values))


def test_a_bucket_keeps_the_last_trace_that_fell_into_it() -> None:
    histogram = Histogram((1.0, 10.0))
    for value, trace_id in ((0.5, "a"), (0.7, "b"), (0.9, None), (5.0, None), (50.0, "c")):
        histogram.observe(value, trace_id)
    kept = histogram.to_json()["exemplars"]
    assert [(bucket, trace_id, value) for bucket, trace_id, value, _ in kept] == [(0, "b", 0.7), (2, "c", 50.0)]
    assert all(abs(at - time.time()) < 3600 for *_, at in kept)


def test_the_traces_of_streams_are_exemplars_of_what_they_took() -> None:
    ledger = StreamLedger()
    with ledger.stream("/s") as stream:
        stream.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
        stream.sent(5, events=1)
    row = totals(ledger)
    for name in ("time_to_first_event", "duration", "buffer_high_water"):
        assert [exemplar[1] for exemplar in row[name]["exemplars"]] == ["4bf92f3577b34da6a3ce929d0e0e4736"]
    assert row["inter_event"]["exemplars"] == []  # one a send: the hot path does without
