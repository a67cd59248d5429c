"""Finds this process's running event loops from any thread, without the application's help."""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Callable
    from typing import Any

__all__ = ["alive_tasks", "call_on_loop", "current_tasks", "running_loops", "task_count", "task_states"]


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
    states = {"pending": 0, "cancelling": 0}
    for task in alive_tasks():
        if not task.done():
            states["cancelling" if task.cancelling() else "pending"] += 1
    return states


def alive_tasks() -> list[asyncio.Task[Any]]:
    """Every task of every loop, done ones too as long as someone holds them; in no particular order."""
    tasks = _task_set()
    if tasks is None:
        return []
    # Another thread may add a task while the set is copied. asyncio.all_tasks() tries again likewise.
    for _ in range(100):
        try:
            return list(tasks)
        except RuntimeError:
            continue
    return []


def current_tasks() -> list[asyncio.Task[Any]]:
    """The task that each loop runs at this moment."""
    running = getattr(sys.modules.get("asyncio.tasks"), "_current_tasks", None) or {}
    return list(running.values())


def running_loops() -> list[asyncio.AbstractEventLoop]:
    """Every loop that runs a task now, in no particular order."""
    found: list[asyncio.AbstractEventLoop] = []
    for task in alive_tasks():
        loop = task.get_loop()
        if loop not in found and loop.is_running():
            found.append(loop)
    return found


def call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None], patience: float) -> bool:
    """Run `call` on the loop's thread and wait for it; False if the loop did not come to it within `patience` seconds.

    A call that was given up is never made later.
    """
    done = threading.Event()
    lock = threading.Lock()
    given_up = False

    def on_loop() -> None:
        with lock:
            if given_up:
                return
            try:
                call()
            finally:
                done.set()

    try:
        loop.call_soon_threadsafe(on_loop)
    except RuntimeError:  # the loop closed meanwhile
        return False
    if done.wait(patience):
        return True
    with lock:
        given_up = not done.is_set()
    return not given_up
