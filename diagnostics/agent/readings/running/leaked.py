"""Tasks that nothing can wake: what a goroutine leak profile is for Go.

A task waits for a future. Code that sets the future must reach it: from a handle or timer of the loop, a transport on its
selector, a thread, another task that runs on, or the program's globals (a queue that a later request may fill). Where the
future can be reached from none of these, it will never be set, and the task stays with all that its frames hold.

    1. mark everything that is reachable from modules, classes, the loops' handles and transports, and the frames of all
       threads, without passing through an unfinished task: a reference to a task does not mean that the task will be woken
    2. a task that waits for nothing, or for something marked, runs on: walk through it as well
    3. repeat until no further task is found to run on; the others are leaked

A future with a higher reference count than objects refer to it is held by C code, which may set it: its task is not called
leaked. In every case that cannot be seen the answer is "not leaked".
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from typing import Any

from ...loops.asyncio_tasks import alive_tasks, current_tasks, loops_of_tasks
from ...loops.futures import waited_for
from ..graph import (
    all_referents,
    in_time,
    is_loops_own,
    is_shared_constant,
    program_roots,
    running_locals,
    tracked,
)
from ..references import LOST, why_alive
from ..walk.steps import of_kinds
from .awaits import frame_key

__all__ = ["MOST_OBJECTS", "leaked_tasks"]

# The walk keeps an entry for each object: with more tracked objects than this it is not begun.
MOST_OBJECTS = 3_000_000
# For so many of the leaked tasks it is tested whether C code holds their future; each test searches all objects.
_SAMPLE = 20


def leaked_tasks(threads: Iterable[Any], until: float = math.inf) -> set[int]:
    """The ids of unfinished tasks that nothing can wake. To be called in a forked child.

    threads   frames of other threads that `threads.frames_with_locals` returned before the fork
    until     deadline, monotonic seconds
    Raises LateError past the deadline.
    """
    waiting = {id(task): task for task in alive_tasks() if not task.done()}
    things, _ = tracked()
    own = frozenset(kind for kind in set(map(type, things)) if is_loops_own(kind))
    start = [*program_roots(), *loops_of_tasks(), *threads, *running_locals(), *of_kinds(things, own)]
    del things
    running = {id(task) for task in current_tasks()}
    walk = _Walk(set(waiting), until)
    walk.reach(start)
    while True:
        woken = [task for key, task in waiting.items() if key in running or _may_wake(task, walk.seen)]
        if not woken:
            break
        for task in woken:
            del waiting[id(task)]
            walk.closed.discard(id(task))
        walk.reach(woken)
    sample: list[Any] = list(waiting.values())[:_SAMPLE]
    by_c = {id(task) for task in sample if why_alive([waited_for(task)], until, steps=1) == LOST}
    # Only some were tested: where C code holds the futures of all these, it is taken to hold the others' as well.
    return set() if by_c and len(by_c) == len(sample) else waiting.keys() - by_c


def _may_wake(task: Any, seen: set[int]) -> bool:
    """Whether the task runs on: it waits for nothing, for a done future, or for one that was reached (`seen`)."""
    waiter = waited_for(task)
    return waiter is None or bool(waiter.done()) or id(waiter) in seen


class _Walk:
    """`seen`: ids of the objects reached so far. `closed`: ids of tasks that are not passed through."""

    def __init__(self, closed: set[int], until: float) -> None:
        self.seen: set[int] = set()
        self.closed = closed
        self._until = until

    def reach(self, start: Iterable[Any]) -> None:
        level = [thing for thing in start if id(thing) not in self.closed]
        self.seen.update(map(id, level))
        while level:
            following: list[Any] = []
            for batch in in_time(level, self._until, self.seen.__len__):
                for referent in all_referents(batch):
                    key = id(referent)
                    if key in self.seen or key in self.closed or is_shared_constant(referent):
                        continue
                    self.seen.add(key)
                    following.append(referent)
                    if issubclass(type(referent), weakref.ref):
                        self._add_target(referent, following)
            level = following

    def _add_target(self, reference: Any, following: list[Any]) -> None:
        """Follow a weak reference: a protocol has one to its StreamReader and wakes its waiter. Those to async generators are
        not followed: a loop has them only to close the generators at its end."""
        target = weakref.ref.__call__(reference)
        if target is None or id(target) in self.seen or id(target) in self.closed or frame_key(target) is not None:
            return
        self.seen.add(id(target))
        following.append(target)
