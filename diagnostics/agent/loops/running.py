"""Finds this process's running event loops from any thread, without the application's help."""

from __future__ import annotations

import weakref

from ..reading_cache import ReadingCache
from ..unpatched import allocate_lock
from .asyncio_tasks import alive_tasks, current_tasks, loops_of_tasks, slices_of_alive, task_count, task_states

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Callable

__all__ = [
    "RunningLoops",
    "alive_tasks",
    "call_on_loop",
    "current_tasks",
    "running_loops",
    "slices_of_alive",
    "task_count",
    "task_states",
]


def running_loops() -> list[asyncio.AbstractEventLoop]:
    """Every loop that runs now, in no particular order; before Python 3.14 only those that have a task."""
    return [loop for loop in loops_of_tasks() if loop.is_running()]


class RunningLoops:
    """`running_loops` for frequent callers: where there are thousands of tasks the result is cached for some seconds."""

    def __init__(self) -> None:
        self._references = ReadingCache(
            lambda: [weakref.ref(loop) for loop in running_loops()], share=2000, longest=5.0
        )

    def __call__(self) -> list[asyncio.AbstractEventLoop]:
        loops = [loop for reference in self._references() if (loop := reference()) is not None and loop.is_running()]
        if not loops:
            self._references.forget()
        return loops


def call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None], patience: float) -> bool:
    """Run `call` on the loop's thread and wait for it; False if the loop did not begin it within `patience` seconds.

    After False it is never run.
    """
    done = allocate_lock()
    done.acquire()
    lock = allocate_lock()
    begun = False
    given_up = False

    def on_loop() -> None:
        nonlocal begun
        with lock:
            if given_up:
                return
            begun = True
            try:
                call()
            finally:
                done.release()

    try:
        loop.call_soon_threadsafe(on_loop)
    except RuntimeError:  # the loop closed meanwhile
        return False
    if done.acquire(True, patience):
        return True
    with lock:
        given_up = not begun
    return begun
