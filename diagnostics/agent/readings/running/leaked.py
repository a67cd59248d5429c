"""Tasks that nothing can wake: what a goroutine leak profile is for Go.

A task waits for a future. Whoever is to set it must reach it: a handle or timer of the loop, a transport on its selector, a
thread, another task that runs on, or the program by a name (a queue in a global, which some later request may fill). Where
the future can be reached from none of these, nobody will ever set it, and the task stays with all that its frames hold.

    1. everything that is reached from the program (modules, classes), from what the loops keep, and from the frames of all
       threads, without passing through an unfinished task: that somebody holds a task does not mean that it will be woken
    2. a task that waits for nothing, or for something reached, runs on: it is passed through as well
    3. again, until no further task is found to run on; the others are leaked

A future to which more references are counted than objects refer is held by C code, which may set it: its task is not called
leaked. That is so for whatever cannot be seen: the answer errs towards "not leaked".
"""

from __future__ import annotations

import gc
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
    of_kinds,
    program_roots,
    running_locals,
)
from ..references import LOST, why_alive
from .awaits import frame_key

__all__ = ["MOST_OBJECTS", "leaked_tasks"]

# The walk keeps an entry for each object: beyond this many it is not begun.
MOST_OBJECTS = 3_000_000
# So many of the leaked are asked whether C code holds what they wait for; each asking looks through all objects.
_ASKED = 20


def leaked_tasks(threads: Iterable[Any], until: float = math.inf) -> set[int]:
    """The ids of unfinished tasks that nothing can wake. To be called in a forked child.

    threads   what `threads.held` found before the fork
    Raises LateError where it is not done `until` then (monotonic seconds).
    """
    waiting = {id(task): task for task in alive_tasks() if not task.done()}
    tracked = gc.get_objects()
    own = frozenset(kind for kind in set(map(type, tracked)) if is_loops_own(kind))
    start = [*program_roots(), *loops_of_tasks(), *threads, *running_locals(), *of_kinds(tracked, own)]
    del tracked
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
    asked: list[Any] = list(waiting.values())[:_ASKED]
    by_c = {id(task) for task in asked if why_alive([waited_for(task)], until, steps=1) == LOST}
    # Of many that wait alike only some are asked: where C code holds what these wait for, it holds the others' as well.
    return set() if by_c and len(by_c) == len(asked) else waiting.keys() - by_c


def _may_wake(task: Any, seen: set[int]) -> bool:
    """Whether the task runs on: it waits for nothing, for what is done, or for what something alive has reached."""
    waiter = waited_for(task)
    return waiter is None or bool(waiter.done()) or id(waiter) in seen


class _Walk:
    """What was reached so far. `closed`: tasks that are not passed through."""

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
        """A protocol knows its StreamReader by a weak reference, and wakes who waits there. A loop knows its asynchronous
        generators so, to close them at its end: that wakes nobody."""
        target = weakref.ref.__call__(reference)
        if target is None or id(target) in self.seen or id(target) in self.closed or frame_key(target) is not None:
            return
        self.seen.add(id(target))
        following.append(target)
