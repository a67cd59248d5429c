"""Finds this process's running event loops from any thread, without the application's help."""

from __future__ import annotations

import sys
import weakref
from operator import methodcaller

from .thrift import Thrifty
from .unpatched import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Callable
    from typing import Any

__all__ = ["RunningLoops", "alive_tasks", "call_on_loop", "current_tasks", "running_loops", "task_count", "task_states"]

_LOOP_OF = methodcaller("get_loop")


def _task_set() -> Any:
    """asyncio's own register of tasks (a WeakSet), or None where asyncio was never imported or keeps it elsewhere.

    `asyncio.all_tasks()` answers for the caller's loop only, and the agent's thread has none.
    """
    tasks = sys.modules.get("asyncio.tasks")
    return getattr(tasks, "_all_tasks", None) or getattr(tasks, "_scheduled_tasks", None)


def task_count() -> int | None:
    """How many asyncio tasks are alive, on all loops; None where it cannot be known."""
    tasks = _task_set()
    if tasks is None:
        return 0 if "asyncio.tasks" not in sys.modules else None
    return len(tasks)


def task_states() -> dict[str, int]:
    """How many unfinished tasks wait or run ("pending"), and how many were told to end and have not ("cancelling")."""
    unfinished = cancelling = 0
    # One pass: of ten thousand tasks each is in the processor's cache only while it is looked at.
    for reference in _references():
        task = reference()
        if task is not None and not task.done():
            unfinished += 1
            if task.cancelling():
                cancelling += 1
    return {"pending": unfinished - cancelling, "cancelling": cancelling}


def alive_tasks() -> list[asyncio.Task[Any]]:
    """Every task of every loop, done ones too as long as someone holds them; in no particular order."""
    return [task for reference in _references() if (task := reference()) is not None]


def _references() -> list[weakref.ref[asyncio.Task[Any]]]:
    """The weak references in asyncio's register, copied: its own iterator is Python code, three times as slow."""
    tasks = _task_set()
    if tasks is None:
        return []
    # Another thread may add a task while the set is copied. asyncio.all_tasks() tries again likewise.
    for _ in range(100):
        try:
            return list(tasks.data)
        except RuntimeError:
            continue
    return []


def current_tasks() -> list[asyncio.Task[Any]]:
    """The task that each loop runs at this moment."""
    running = getattr(sys.modules.get("asyncio.tasks"), "_current_tasks", None) or {}
    return list(running.values())


def running_loops() -> list[asyncio.AbstractEventLoop]:
    """Every loop that runs now and has a task, in no particular order."""
    return [loop for loop in set(map(_LOOP_OF, alive_tasks())) if loop.is_running()]


class RunningLoops:
    """`running_loops` for whoever asks often: thousands of tasks are searched for one more loop every few seconds."""

    def __init__(self) -> None:
        self._found = Thrifty(lambda: [weakref.ref(loop) for loop in running_loops()], share=2000, longest=5.0)

    def __call__(self) -> list[asyncio.AbstractEventLoop]:
        loops = [loop for reference in self._found() if (loop := reference()) is not None and loop.is_running()]
        if not loops:
            self._found.forget()
        return loops


def call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None], patience: float) -> bool:
    """Run `call` on the loop's thread and wait for it; False if the loop did not come to it within `patience` seconds.

    A call that was given up is never made later.
    """
    done = allocate_lock()
    done.acquire()
    lock = allocate_lock()
    made = False
    given_up = False

    def on_loop() -> None:
        nonlocal made
        with lock:
            if given_up:
                return
            made = True
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
        given_up = not made
    return made
