"""Threads of a `tasks` capture, by what they run and where they wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from diagnostics.agent.readings.running import threads
from diagnostics.agent.readings.running.tasks import name_pattern
from diagnostics.monitor.captures.kinds.tasks import thread_groups


def test_threads_are_told_by_their_own_function_and_by_their_name_where_they_have_no_work() -> None:
    """3,000 executors without work were named by the line of threading.py that all threads begin at."""
    done = Event()
    idle = [ThreadPoolExecutor(1, thread_name_prefix=f"idle-{number}") for number in range(3)]
    busy = ThreadPoolExecutor(1)
    try:
        for pool in idle:
            pool.submit(int).result()
        busy.submit(lambda: done.wait())
        read = [
            {"name": name_pattern(name), "stack": [list(frame) for frame in frames]} for name, frames in threads.read()
        ]
        groups = {row["runs"]: row["count"] for row in thread_groups(read)}
    finally:
        done.set()
        for pool in [*idle, busy]:
            pool.shutdown()
    assert groups["nothing, as 'idle-*_*'"] == 3
    assert sum(count for runs, count in groups.items() if "<lambda> (test_thread_groups.py" in runs) == 1
