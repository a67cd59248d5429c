"""What keeps an object alive: the path of references from a root to it, or why there is none.

Of several paths the one that tells a programmer most is taken, by searching up to eight times:

    1. from unfinished tasks and the modules of the application, without passing through the namespaces and classes of libraries
    2. objects not found then, from the frames of all threads, likewise. What is kept for good is in a frame, too, while it is
       being put where it stays
    3. objects not found then, from libraries' modules and what the interpreter calls later, at a fork, a signal or its
       end. What these hold is mostly constant
    4. objects not found then, from all classes. A class that is made while the program runs has a holder too, which the first
       searches have found, unless nothing but its own circle of references holds it
    5. objects not found then, from the event loops: timers and callbacks. The other searches do not pass through a loop, which
       refers to everything that runs
    6. objects that only a task was found to lead to, from the modules of the application and then from all, without passing
       through a task or a frame. The task of a request passes by whatever it uses and ends soon; a module that leads there as
       well is what keeps it
    7. objects that only an open stream's task was found to lead to, from all other tasks, threads and frames, without passing
       through what belongs to an open stream. What is not found then is freed when its stream ends: the stream buffers it

An object that no root reaches is garbage in a cycle, or C code holds it or has lost it; see references.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..loops.asyncio_tasks import alive_tasks, loops_of_tasks
from ..loops.coroutines import coroutine_of
from ..loops.futures import declares
from .classes import kinds_below, module_of, qualname_of
from .graph import (
    LateError,
    is_ours,
    module_roots,
    namespace_of,
    program_roots,
    roots,
    running_locals,
    search,
    settle,
)
from .hooks import Hooks, hooks
from .newness import FirstLook
from .paths import describe, is_loop, way_to
from .references import CYCLE, LOST, traced
from .running.awaits import chain
from .running.streams import OpenStream, parts_of
from .running.threads import ThreadFrame
from .walk.parents import Parents

__all__ = ["CYCLE_TEXT", "LOST_TEXT", "OURS", "ROOT_UNKNOWN", "STREAM", "Held", "Ways", "holder_of"]

OURS, ROOT_UNKNOWN, STREAM = "ours", "unknown", "stream"
CYCLE_TEXT = "(in a cycle that nothing reaches: garbage that waits for the collector)"
LOST_TEXT = "(held by a reference that no object has: C code holds it, or has lost it)"
_IN_C = "(a reference that no object has: C code's)"
_UNREACHED_TEXT = "(reached from no module, task or frame, and its holders are too many to be followed)"

# Classes of the agent whose instances stand for roots of the service.
_OF_OTHERS = (ThreadFrame, Hooks)

_LIBRARY = str(Path(os.__file__).parent)
_FOREIGN = ("site-packages", "dist-packages")


class Held(NamedTuple):
    """What keeps an object alive.

    root     the kind of the path's root; STREAM for an object that nothing but an open stream keeps alive
    path     the path without lengths of containers
    example  the path with them
    stream   with STREAM, the id of that stream
    """

    root: str
    path: str
    example: str
    stream: int | str | None = None


class Ways:
    """The paths from roots to all of `things`, as far as there are any. Raises LateError past `until` (monotonic seconds).

    streams  the open streams, as `open_streams` returns them
    first    marks of a first census, if there was one
    """

    def __init__(
        self,
        things: Iterable[Any],
        threads: Sequence[ThreadFrame],
        until: float,
        streams: Sequence[OpenStream] = (),
        first: FirstLook | None = None,
    ) -> None:
        self.until = until
        self._first = first
        self._streams = streams
        self.working: set[int] = set()  # ids of this reading's own lists, which hold the objects too
        wanted = list(things)
        tasks = [task for task in alive_tasks() if not task.done()]
        applications, others = _modules()
        closed = {id(namespace_of(module)) for module in others} | {id(module) for module in others}
        closed.update(id(kind) for kind in program_roots() if issubclass(type(kind), type) and _of_a_library(kind))
        self.parents = search([*tasks, *applications], wanted, until=until, closed=closed)
        missing = [thing for thing in wanted if id(thing) not in self.parents]
        if missing:
            start = [*threads, *running_locals()]
            self.parents = search(start, missing, until=until, closed=closed, earlier=self.parents)
        for from_classes in (False, True):
            missing = [thing for thing in wanted if id(thing) not in self.parents]
            if missing:
                start = [*module_roots(), *running_locals(), *self._later]
                if from_classes:
                    start = [root for root in roots() if not _is_of_a_function(root)]
                self.parents = search(start, missing, until=until, earlier=self.parents)
        missing = [thing for thing in wanted if id(thing) not in self.parents]
        if missing:
            self.parents = search(loops_of_tasks(), missing, until=until, earlier=self.parents, through_loops=True)
        settle(wanted, self.parents)
        of_tasks = self._of_tasks(wanted, tasks)
        self._lasting = self._of_modules(of_tasks, tasks, applications, closed)
        self._stream_of = self._of_streams(of_tasks, tasks, threads)
        # Of other objects that the last search has passed its result does not tell the one that refers to each.
        self._passed_by = {id(thing) for thing in of_tasks if id(thing) in self._lasting}

    def told(self, way: Sequence[Any]) -> tuple[str, str]:
        """A way in words, without the lengths of containers and with them."""
        filled = self._first.filled if self._first is not None else None
        return describe(way, lengths=False), describe(way, filled=filled)

    @cached_property
    def _later(self) -> list[Hooks]:
        return hooks()

    def to(self, thing: Any) -> list[Any]:
        """The objects from a root to `thing`; empty where there is no way."""
        return way_to(thing, self._lasting if id(thing) in self._passed_by else self.parents)

    def stream_of(self, thing: Any) -> int | str | None:
        """The id of the open stream that alone keeps `thing` alive; None where none does, or where it is not known."""
        number = self._stream_of.get(id(thing))
        return None if number is None else self._streams[number].id

    def _of_tasks(self, wanted: list[Any], tasks: list[Any]) -> list[Any]:
        """Those whose way begins at a task."""
        running = set(map(id, tasks))
        return [
            thing for thing in wanted if id(thing) in self.parents and id(way_to(thing, self.parents)[0]) in running
        ]

    def _of_modules(self, of_tasks: list[Any], tasks: list[Any], applications: list[Any], closed: set[int]) -> Parents:
        """Ways from modules to these objects past all tasks; none where there is no time for them."""
        found = Parents()
        if not of_tasks:
            return found
        running = set(map(id, tasks))
        running.update(id(link) for task in tasks for link in chain(coroutine_of(task)))
        try:
            search(applications, of_tasks, until=self.until, closed=closed | running, earlier=found)
            missing = [thing for thing in of_tasks if id(thing) not in found]
            if missing:
                search([*module_roots(), *self._later], missing, until=self.until, closed=running, earlier=found)
        except LateError:
            return Parents()
        settle(of_tasks, found)
        return found

    def _of_streams(self, of_tasks: list[Any], tasks: list[Any], threads: Sequence[ThreadFrame]) -> dict[int, int]:
        """Id of each of these objects that nothing but an open stream leads to -> the number of that stream.

        Ways that are found past the streams are added to the lasting ones. None are told where there is no time to look.
        """
        parts = parts_of(self._streams)
        owners: dict[int, int] = {}
        for thing in of_tasks:
            on_the_way = (parts[id(each)] for each in way_to(thing, self.parents) if id(each) in parts)
            number = next(on_the_way, None)
            if number is not None and id(thing) not in self._lasting:
                owners[id(thing)] = number
        open_ones = [thing for thing in of_tasks if id(thing) in owners]
        if not open_ones:
            return {}
        start = [*(task for task in tasks if id(task) not in parts), *threads, *running_locals()]
        try:
            search(start, open_ones, until=self.until, closed=parts.keys(), earlier=self._lasting)
        except LateError:
            return {}
        finally:
            settle(of_tasks, self._lasting)  # it passes by other tasks' objects as well
        return {key: number for key, number in owners.items() if key not in self._lasting}


def holder_of(thing: list[Any], ways: Ways) -> Held:
    """What keeps the one object in the list `thing` alive.

    A list, because no variable may refer to the object while its references are counted.
    """
    way = ways.to(thing[0])
    if way:
        if any(is_ours(module_of(type(each))) and type(each) not in _OF_OTHERS for each in way):
            return Held(OURS, "", "")
        stream = ways.stream_of(thing[0])
        root = _root_of(way[0]) if stream is None else STREAM
        return Held(root, *ways.told(way), stream)
    del way
    why, way = traced(thing, ways.until, ours=ways.working)
    if len(way) > 1:  # the path begins at the holder that C code refers to
        return Held(why, *(f"{_IN_C} -> {words}" for words in ways.told(way)))
    text = {CYCLE: CYCLE_TEXT, LOST: LOST_TEXT}.get(why, _UNREACHED_TEXT)
    return Held(why, text, text)


def _is_of_a_function(root: Any) -> bool:
    """Whether this is a class that a function has made: it lives as long as something else holds it, and is garbage then."""
    return issubclass(type(root), type) and "<locals>" in str(qualname_of(root))


def _root_of(root: Any) -> str:
    kind = type(root)
    if kind is ThreadFrame:
        return "thread"
    if kind is Hooks:
        return "hook"
    if declares(kind, "get_coro"):
        return "task"
    if is_loop(kind):
        return "loop"
    if issubclass(kind, ModuleType):
        return "module"
    return "class" if issubclass(kind, type) else "frame"


def _modules() -> tuple[list[Any], list[Any]]:
    """(the application's own modules, all others)."""
    applications: list[Any] = []
    others: list[Any] = []
    kinds = kinds_below(ModuleType)
    for name, module in list(sys.modules.items()):
        if type(module) not in kinds or is_ours(name):
            continue
        (others if _is_library(module) else applications).append(module)
    return applications, others


def _is_library(module: Any) -> bool:
    """Whether a module is of the standard library or an installed package, not in the application's own folders."""
    namespace: dict[str, Any] = namespace_of(module)
    file = namespace.get("__file__")
    if type(file) is not str:
        return bool(namespace.get("__name__") != "__main__")
    return file.startswith(_LIBRARY) or any(folder in file for folder in _FOREIGN)


def _of_a_library(kind: type) -> bool:
    module = sys.modules.get(module_of(kind))
    return module is None or _is_library(module)
