"""What asyncio's tasks and futures hold of each other: who waits for what, who is told, where a task was made.

The law of this file: here are all names that asyncio and anyio keep to themselves, but for the registers of tasks
(asyncio_tasks.py). Each is tried before use: a Python that has none of that name answers None or nothing, as for an object that
has nothing. tests/diagnostics/agent/loops/test_futures.py says which name has moved.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = [
    "callbacks_of",
    "children_of",
    "created_at",
    "host_of",
    "is_future",
    "is_task",
    "members_of",
    "run_until_complete_waits",
    "waited_for",
]


def is_future(thing: Any) -> bool:
    """Whether this is a future of asyncio's, a task included."""
    return hasattr(type(thing), "_asyncio_future_blocking")


def is_task(thing: Any) -> bool:
    """Whether this is a task of asyncio's, or one that behaves like it."""
    return hasattr(type(thing), "get_coro")


def waited_for(task: Any) -> Any:
    """The future that a task waits for; None where it waits for none, or runs."""
    return getattr(task, "_fut_waiter", None)


def callbacks_of(future: Any) -> list[Any]:
    """What is called when the future is done."""
    return [entry[0] for entry in getattr(future, "_callbacks", None) or ()]


def children_of(future: Any) -> list[Any] | None:
    """The futures that `asyncio.gather` made this one of; None where it was made otherwise."""
    return getattr(future, "_children", None)


def members_of(group: Any) -> Iterable[Any]:
    """The tasks of a task group, or what a gathering future was made of; nothing for anything else."""
    return getattr(group, "_tasks", None) or getattr(group, "_children", None) or ()


def host_of(group: Any) -> Any:
    """The task that waits in a task group of asyncio's or anyio's; None for anything else."""
    scope = getattr(group, "cancel_scope", None)
    return getattr(group, "_parent_task", None) or getattr(scope, "_host_task", None)


def created_at(task: Any) -> Any:
    """The stack that a task was made with, outermost frame first; None but in asyncio's debug mode."""
    return getattr(task, "_source_traceback", None)


def run_until_complete_waits(callback_name: str) -> bool:
    """Whether a callback of this name is the one by which `run_until_complete` hears of a future's end."""
    # uvloop's is a closure of Cython.
    return callback_name == "_run_until_complete_cb" or (
        "run_until_complete" in callback_name and callback_name.endswith("done_cb")
    )
