"""Every asyncio task of this process, readable from any thread; or the reason why tasks cannot be seen.

Each release of Python keeps its tasks in a private place: a set (3.11), another set and one of the tasks in their eager first
step (3.12, 3.13; task_sets.py), lists of the threads that only `asyncio.all_tasks(loop)` reads (3.14; tasks_by_loop.py). The
place is not concluded from the version but tried: a trial task is made, and the place that shows it is used. Where none does,
tasks are unknown, with the reason: never none.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Iterator
    from typing import Any

    from .task_sets import TaskSets
    from .tasks_by_loop import TasksByLoop

    Way = TaskSets | TasksByLoop

__all__ = [
    "alive_tasks",
    "current_tasks",
    "free_threaded",
    "hold_for_child",
    "let_go",
    "loops_of_tasks",
    "shows_ended",
    "slices_of_alive",
    "task_count",
    "task_states",
    "why_unseen",
]


class _NoLoop:
    """An event loop that never runs a callback: the trial task must not start."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *_arguments: object, **_options: object) -> None:
        return None


async def _nothing() -> None:
    return None


_way: Way | None = None
_none_works = ""


def _chosen() -> Way | None:
    """The place that shows this process's tasks, tried once; None where asyncio is not (yet) imported, or no place does."""
    global _way, _none_works
    if _way is not None or _none_works:
        return _way
    module = sys.modules.get("asyncio.tasks")
    # While another thread imports a module its last names may be missing.
    if module is None or not hasattr(module, "all_tasks") or not hasattr(sys.modules.get("asyncio"), "all_tasks"):
        return None
    if free_threaded():
        _none_works = "on a free-threaded build of Python the agent cannot look at threads while they run"
        return None
    _way = next((way for kind in _kinds() if _shows_a_task(way := kind(module), module)), None)
    if _way is None:
        version = ".".join(map(str, sys.version_info[:3]))
        _none_works = f"asyncio of Python {version} shows its tasks in no way that this agent knows"
    return _way


def _kinds() -> Iterator[type[Way]]:
    """The likely one for this version first; one that is not tried is not imported into the service."""
    if sys.version_info < (3, 14):
        from .task_sets import TaskSets

        yield TaskSets
    from .tasks_by_loop import TasksByLoop

    yield TasksByLoop
    if sys.version_info >= (3, 14):
        from .task_sets import TaskSets

        yield TaskSets


def _shows_a_task(way: Way, module: Any) -> bool:
    loop, coroutine = _NoLoop(), _nothing()
    try:
        task = module.Task(coroutine, loop=loop)
        task._log_destroy_pending = False
        return way.sees(task, loop)
    except Exception:  # noqa: BLE001  # a future release may raise anything at the trial
        return False
    finally:
        coroutine.close()


def free_threaded() -> bool:
    """Whether this process runs without the GIL: a free-threaded build in which it is not switched on."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is not None and not enabled()


def why_unseen() -> str | None:
    """Why tasks are unknown; None where they are known, also where the process has no asyncio."""
    way = _chosen()
    return (_none_works or None) if way is None else way.why_unseen()


def shows_ended() -> bool:
    """Whether `alive_tasks` includes done tasks that something still refers to."""
    way = _chosen()
    return way is None or way.shows_ended


def task_count() -> int | None:
    """How many asyncio tasks are alive, on all loops; None where it cannot be known."""
    way = _chosen()
    if way is None:
        return None if _none_works else 0
    count = way.count()
    return count if count or way.why_unseen() is None else None


def task_states() -> dict[str, int] | None:
    """The number of unfinished tasks: with a cancellation requested ("cancelling"), and all others ("pending").

    None where it cannot be known.
    """
    unfinished = cancelling = 0
    # One pass: ten thousand tasks do not fit into the processor's cache.
    for part in slices_of_alive():
        for task in part:
            if not task.done():
                unfinished += 1
                if task.cancelling():
                    cancelling += 1
    if not unfinished and why_unseen() is not None:
        return None
    return {"pending": unfinished - cancelling, "cancelling": cancelling}


def alive_tasks() -> list[asyncio.Task[Any]]:
    """Every unfinished task of every loop, in no particular order; done ones that are still referenced where `shows_ended`.

    Empty where tasks cannot be seen: `why_unseen` says why.
    """
    way = _chosen()
    return way.alive() if way is not None else []


def slices_of_alive() -> Iterator[list[asyncio.Task[Any]]]:
    """As `alive_tasks`, with a rest after each slice; for the agent's thread, within an answer."""
    way = _chosen()
    return way.slices_of_alive() if way is not None else iter(())


def hold_for_child() -> None:
    """Keep references to all tasks for a child: in it Python 3.14 forgets those of the thread that forked.

    To be called on the forking thread, just before the fork; `let_go` drops the references in the parent.
    """
    way = _chosen()
    if way is not None:
        way.hold()


def let_go() -> None:
    """In the parent, after the fork: drop the references that `hold_for_child` made."""
    way = _chosen()
    if way is not None:
        way.let_go()


def loops_of_tasks() -> list[asyncio.AbstractEventLoop]:
    """The loops that have tasks or were found running; some may have stopped since."""
    way = _chosen()
    return way.loops() if way is not None else []


def current_tasks() -> list[asyncio.Task[Any]]:
    """The task that each loop runs at this moment."""
    current = getattr(sys.modules.get("asyncio.tasks"), "current_task", None)
    if current is None:
        return []
    running = (current(loop) for loop in loops_of_tasks() if loop.is_running())
    return [task for task in running if task is not None]
