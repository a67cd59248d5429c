"""Loop lag on real loops, and what the recorder asks an agent."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from diagnostics.agent.ledger import StreamLedger
from diagnostics.agent.loops.lag import LoopLag
from diagnostics.agent.operations import perform
from diagnostics.agent.state import State


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in another thread, as a service's does."""
    running = asyncio.new_event_loop()

    async def forever() -> None:
        await asyncio.Event().wait()

    def serve() -> None:
        with asyncio.Runner(loop_factory=lambda: running) as runner:
            try:
                runner.run(forever())
            except asyncio.CancelledError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    while not running.is_running():
        time.sleep(0.001)
    yield running
    running.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(running)])
    thread.join()


def answered(lag: LoopLag, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while lag.pending_seconds:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_idle_loop_answers_and_is_counted_once(loop: asyncio.AbstractEventLoop) -> None:
    lag = LoopLag(loops=lambda: [loop])
    assert lag.seconds is None
    for number in range(1, 4):
        lag.ping()
        answered(lag)
        assert lag.seconds is not None
        assert sum(lag.histogram.counts) == number
    assert lag.seconds > 0


def test_a_stuck_loop_shows_the_age_of_its_ping_and_later_its_lag(loop: asyncio.AbstractEventLoop) -> None:
    lag = LoopLag(loops=lambda: [loop])
    freed = threading.Event()
    loop.call_soon_threadsafe(freed.wait)
    lag.ping()
    time.sleep(0.05)
    assert lag.pending_seconds >= 0.05
    assert (lag.seconds or 0) >= 0.05
    lag.ping()  # no second ping waits behind the first
    assert sum(lag.histogram.counts) == 0
    freed.set()
    answered(lag)
    assert (lag.seconds or 0) >= 0.05
    assert lag.to_json()["max_lag_ms"] >= 50
    assert sum(lag.histogram.counts) == 1
    lag.begin()
    assert lag.to_json() == {"lag_ms": 0.0, "max_lag_ms": 0.0}
    assert sum(lag.histogram.counts) == 1


def test_a_loop_that_is_gone_is_late_for_nobody(loop: asyncio.AbstractEventLoop) -> None:
    loops = [loop]
    lag = LoopLag(loops=lambda: loops)
    freed = threading.Event()
    loop.call_soon_threadsafe(freed.wait)
    lag.ping()
    loops.clear()
    lag.ping()
    freed.set()
    assert lag.seconds is None
    closed = asyncio.new_event_loop()
    closed.close()
    loops.append(closed)
    lag.ping()
    assert lag.pending_seconds == 0


def test_a_stuck_loop_shows_while_it_is_stuck_and_the_worst_is_remembered(eventually: Callable[..., object]) -> None:
    ready, stop = threading.Event(), threading.Event()

    freed = threading.Event()

    async def serve() -> None:
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait(60)
    lag = LoopLag()
    try:
        from diagnostics.agent.loops.running import running_loops

        (loop,) = running_loops()
        loop.call_soon_threadsafe(freed.wait)
        lag.ping()
        time.sleep(0.3)
        stuck = lag.to_json()["lag_ms"]
        assert stuck >= 300  # not yet answered, and seen
        freed.set()
        answered(lag)

        def is_prompt_again() -> bool:
            lag.ping()
            answered(lag)
            return lag.to_json()["lag_ms"] < stuck

        eventually(is_prompt_again)
        assert lag.to_json()["max_lag_ms"] >= stuck
        lag.begin()
        assert lag.to_json() == {"lag_ms": 0.0, "max_lag_ms": 0.0}
    finally:
        freed.set()
        stop.set()
        thread.join(60)


def test_a_loop_that_closed_is_no_failure() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    lag = LoopLag(loops=lambda: [loop])
    lag.ping()
    assert lag.to_json()["lag_ms"] == 0


def test_an_answer_that_is_due_counts_from_when_it_exceeds_the_one_before() -> None:
    now = [0.0]
    calls: list[tuple[Any, Any]] = []

    class Loop:
        def call_soon_threadsafe(self, call: Any, ping: Any) -> None:
            calls.append((call, ping))

    loop: Any = Loop()
    lag = LoopLag(clock=lambda: now[0], loops=lambda: [loop])
    lag.ping()
    now[0] = 1.5
    call, ping = calls.pop()
    call(ping)
    lag.ping()
    now[0] = 1.6
    assert lag.to_json()["lag_ms"] == 1500  # a fresh ping does not hide that the loop is late
    lag.ping()
    assert len(calls) == 1  # one call is left with a loop at a time


def test_a_sample_has_numbers_only_and_counts_streams() -> None:
    ledger = StreamLedger()
    state = State()
    state.ledgers += [ledger, StreamLedger()]
    with ledger.stream("/done") as record:
        record.sent(10, events=2)
    record = ledger.open("/open")
    record.sent(10, events=3)
    record.hold(100)
    sample = perform(state, "sample", {})
    assert isinstance(sample, dict)
    assert sample["streams"] == {"open": 1, "abandoned": 0, "buffered_bytes": 100, "events": 5, "finished": 1}
    # Not of pytest's own process, in which another test may have put a tracer before the allocator.
    asked = "from diagnostics.agent.operations import perform; from diagnostics.agent.state import State; "
    asked += "print(perform(State(), 'sample', {})['in_use_bytes'])"
    alone = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, encoding="utf-8", timeout=60)
    assert int(alone.stdout) > 0
    assert len(sample["gc_collections"]) == 3
    record.close()
    assert isinstance(perform(State(), "sample", {}), dict)
    assert perform(State(), "sample", {})["streams"] is None  # type: ignore[index]


def test_a_reading_tells_tasks_by_state_and_the_collectors_runs() -> None:
    async def stubborn(told: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
            await asyncio.sleep(0)
            await asyncio.Event().wait()

    async def scene() -> None:
        told = asyncio.Event()
        task = asyncio.create_task(stubborn(told))
        await asyncio.sleep(0)
        task.cancel()
        await told.wait()
        before = reading()
        gc.collect()
        after = reading()
        assert before["task_states"] == {"pending": 1, "cancelling": 1}  # this one, and the stubborn one
        assert after["gc"]["collections"][2] == before["gc"]["collections"][2] + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def reading() -> dict[str, dict[str, list[int]]]:
        found = perform(State(), "reading", {})
        assert isinstance(found, dict)
        return found

    asyncio.run(scene())
