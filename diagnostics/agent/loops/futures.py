"""What asyncio's tasks and futures refer to: the awaited future, done callbacks, a task's creation site.

The law of this file: it has all private names of asyncio and anyio that the agent reads, but for the sets of all tasks
(asyncio_tasks.py). On a Python without one of these names the answer is None or empty, as for an object without a value;
tests/diagnostics/agent/loops/test_futures.py says which name has moved.
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
    "declares",
    "host_of",
    "is_future",
    "is_task",
    "members_of",
    "run_until_complete_waits",
    "waited_for",
]


_mro_of, _names_in = vars(type)["__mro__"].__get__, vars(type)["__dict__"].__get__


def declares(kind: type, name: str) -> bool:
    """Whether a class or a base has an attribute of this name; `hasattr` would run the code of a metaclass."""
    return any(name in _names_in(base) for base in _mro_of(kind))


def is_future(thing: Any) -> bool:
    """Whether this is a future of asyncio's, a task included."""
    return declares(type(thing), "_asyncio_future_blocking")


def is_task(thing: Any) -> bool:
    """Whether this is an asyncio task, or an object with the same interface."""
    return declares(type(thing), "get_coro")


def waited_for(task: Any) -> Any:
    """The future that a task awaits; None where it awaits none, or runs."""
    return getattr(task, "_fut_waiter", None)


def callbacks_of(future: Any) -> list[Any]:
    """The done callbacks of a future."""
    return [entry[0] for entry in getattr(future, "_callbacks", None) or ()]


def children_of(future: Any) -> list[Any] | None:
    """The futures that an `asyncio.gather` future waits for; None for any other future."""
    return getattr(future, "_children", None)


def members_of(group: Any) -> Iterable[Any]:
    """The tasks of a task group, or the children of a gather future; empty for anything else."""
    return getattr(group, "_tasks", None) or getattr(group, "_children", None) or ()


def host_of(group: Any) -> Any:
    """The task that entered a task group of asyncio or anyio; None for anything else."""
    scope = getattr(group, "cancel_scope", None)
    return getattr(group, "_parent_task", None) or getattr(scope, "_host_task", None)


def created_at(task: Any) -> Any:
    """The stack at which a task was created, outermost frame first; None except in asyncio's debug mode."""
    return getattr(task, "_source_traceback", None)


def run_until_complete_waits(callback_name: str) -> bool:
    """Whether a done callback of this name is the one that `run_until_complete` adds."""
    # uvloop's is a closure, compiled by Cython.
    return callback_name == "_run_until_complete_cb" or (
        "run_until_complete" in callback_name and callback_name.endswith("done_cb")
    )
