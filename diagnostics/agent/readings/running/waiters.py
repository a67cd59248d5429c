"""What waits for a task: other tasks, the program (`run_until_complete`), or nothing.

A future has no reference to the task that awaits it, but to its done callbacks, and each way of awaiting adds its own kind:

    await task                    the awaiting task's wake-up, a method bound to it
    gather, wait, shield          a closure over the future on which the awaiting task waits in turn
    wait_for (3.11)               a partial with that future
    asyncio.TaskGroup, anyio      a method of, or closure over, the group, which knows its task
    run, run_until_complete       the loop's own callback: the program itself waits

Any other callback (`set.discard`, a logger) keeps or watches the task, and waits for nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from ...loops.futures import callbacks_of, host_of, is_future, is_task, run_until_complete_waits
from ..classes import module_of, name_of, qualname_of

__all__ = ["PROGRAM", "callback_name", "waiters"]

PROGRAM = "the program"
# Of nesting (gather within wait within shield); nobody writes deeper by hand.
_MAX_DEPTH = 6
_FUNCTIONS = frozenset(
    {"function", "method", "builtin_function_or_method", "method-wrapper", "cython_function_or_method"}
)


def waiters(future: Any, depth: int = 0) -> Iterator[Any]:
    """The tasks that wait for this future, and PROGRAM where run_until_complete does."""
    if depth > _MAX_DEPTH:
        return
    for callback in callbacks_of(future):
        if run_until_complete_waits(callback_name(callback)):
            yield PROGRAM
            continue
        for referent in _referents_of(callback):
            task = _task_of(referent)
            if task is not None:
                if task is not future:
                    yield task
            elif is_future(referent):
                yield from waiters(referent, depth + 1)


def callback_name(callback: Any) -> str:
    """A done callback's name, bounded; a bound method is named by its class."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    # `__qualname__` only of functions: that of the application's own callables may run code.
    named = name_of(type(callback)) in _FUNCTIONS
    return str(callback.__qualname__ if named else qualname_of(type(callback)))[:80]


def _referents_of(callback: Any) -> Iterator[Any]:
    """The objects that a callback refers to: the one it is bound to, its closure's, its arguments."""
    while isinstance(callback, functools.partial):
        yield from callback.args
        callback = callback.func
    if name_of(type(callback)) not in _FUNCTIONS:
        return
    bound_to = getattr(callback, "__self__", None)
    # `future.add_done_callback(other.cancel)` is bound to a task, too, which does not wait for the future.
    if bound_to is not None and (not is_task(bound_to) or "wakeup" in callback_name(callback)):
        yield bound_to
    # The application's own closures may refer to futures that have nothing to do with waiting.
    if _is_of_asyncio(getattr(callback, "__module__", None)):
        for cell in getattr(callback, "__closure__", None) or ():
            try:
                referent = cell.cell_contents
            except ValueError:  # an empty cell
                continue
            # A task in the closure is the awaited one: the awaiting task is behind a future or a group.
            if not is_task(referent):
                yield referent


def _is_of_asyncio(module: object) -> bool:
    return str(module).partition(".")[0] in ("asyncio", "_asyncio", "anyio")


def _task_of(referent: Any) -> Any:
    if is_task(referent):
        return referent
    if not _is_of_asyncio(module_of(type(referent))):
        return None
    task = host_of(referent)
    return task if is_task(task) else None
