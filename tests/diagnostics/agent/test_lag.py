"""The lag of a loop, measured on a real one that is held up on purpose."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from diagnostics.agent.lag import LoopLag


def test_a_stuck_loop_shows_while_it_is_stuck_and_the_worst_is_remembered() -> None:
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait(5)
    lag = LoopLag()
    try:
        from diagnostics.agent.loops import running_loops

        (loop,) = running_loops()
        loop.call_soon_threadsafe(time.sleep, 0.6)
        time.sleep(0.05)
        lag.ping()
        time.sleep(0.3)
        assert lag.to_json()["lag_ms"] > 250  # not yet answered, and seen
        time.sleep(0.5)
        lag.ping()
        time.sleep(0.1)
        lag.ping()
        told = lag.to_json()
        assert told["max_lag_ms"] > 400
        assert told["lag_ms"] < 250
        lag.begin()
        assert lag.to_json() == {"lag_ms": 0.0, "max_lag_ms": 0.0}
    finally:
        stop.set()
        thread.join(5)


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
