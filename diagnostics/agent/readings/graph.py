"""The graph of live objects: what refers to what, where it begins, and what an object weighs.

Everything here is `gc.get_referents`, read in a forked child where nothing moves. Modules are the exception, because a module
written in C may show the collector more than what it holds: CPython 3.12's `_asyncio` shows freed iterators that it keeps
for the next `await`. Taking a reference to one and dropping it again puts it on that list a second time, and from then on the
list has no end. So a module is its `__dict__` here, whatever it is written in. Objects that the garbage collector does not
track (bytes, strings, numbers, dictionaries of such) have no place in its lists and are reached through their holders.
Nothing here calls the application's code: no `__eq__`, no property, no `__sizeof__` of its making, and no `isinstance`, which
asks an object of a foreign class for its `__class__` (a proxy answers that with code).
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import compress, repeat
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from ..loops.asyncio_tasks import alive_tasks

__all__ = [
    "ATOMS",
    "LateError",
    "all_referents",
    "in_time",
    "is_loops_own",
    "is_ours",
    "is_program",
    "is_shared_constant",
    "kinds_below",
    "module_of",
    "namespace_of",
    "of_kinds",
    "program_roots",
    "reached",
    "referents",
    "roots",
    "running_locals",
    "search",
    "size_of",
    "sizes_of",
    "type_name",
]

# Memory without references of its own, which the collector does not track.
ATOMS = frozenset({bytes, bytearray, str})
# Never worth a look: they refer to nothing and every one of them is shared by all.
_IGNORED = frozenset({type(None), bool, type(Ellipsis), type(NotImplemented)})

# What one call of the collector is asked about: enough for its own cost to vanish, and a walk looks at the clock in between.
_BATCH = 2_000

_PROGRAM = (ModuleType, FunctionType, BuiltinFunctionType, CodeType, type)

# The agent is loaded under a name of its own into services that have a package of ours as well.
_PACKAGE = __name__.rpartition(".readings")[0]
_AGENT = str(Path(__file__).parent.parent)

# Read past whatever a subclass of ModuleType says of its `__dict__`.
namespace_of = vars(ModuleType)["__dict__"].__get__

_sizeof_is_builtin: dict[type, bool] = {}
_loops_own: dict[type, bool] = {}


def referents(thing: Any) -> list[Any]:
    """What `thing` refers to directly: of a module its namespace, of code, which the collector does not know, its constants."""
    kind = type(thing)
    if kind is CodeType:
        return [thing.co_consts]
    if issubclass(kind, ModuleType):
        return [namespace_of(thing)]
    return gc.get_referents(thing)


def all_referents(things: list[Any]) -> list[Any]:
    """What all of `things` refer to directly, by one call where none of them is a module or code."""
    # Of these the collector does not tell what is asked here.
    odd = (kinds_below(ModuleType) | {CodeType}).intersection(map(type, things))
    if not odd:
        return gc.get_referents(*things)
    plain = [thing for thing in things if type(thing) not in odd]
    return gc.get_referents(*plain) + [inside for thing in of_kinds(things, odd) for inside in referents(thing)]


def roots() -> list[Any]:
    """Where life begins: modules, classes, unfinished tasks, and the locals of this thread's frames; the other threads' are to
    be added where they were taken before the fork (`threads.held`).

    Modules, classes and frames of the agent are left out: what they hold is ours. A task that is done lives only as long as
    somebody holds it.
    """
    return [*program_roots(), *(task for task in alive_tasks() if not task.done()), *running_locals()]


def program_roots() -> list[Any]:
    """Modules and classes. Those of the agent are left out: what they hold is ours."""
    modules = [module for name, module in list(sys.modules.items()) if not is_ours(name)]
    classes = [kind for kind in of_kinds(gc.get_objects(), kinds_below(type)) if not is_ours(module_of(kind))]
    return [*modules, builtins, *classes]


def is_ours(module: str) -> bool:
    """Whether a module is one of the agent's, under whatever name that was loaded."""
    return module == _PACKAGE or module.startswith(_PACKAGE + ".")


def running_locals() -> list[Any]:
    """The locals of this thread's frames, without those of the agent."""
    found: list[Any] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_AGENT):
            found.extend(frame.f_locals.values())
        frame = frame.f_back
    return found


def is_program(thing: Any) -> bool:
    """Modules, classes, functions and code: they are the program, and never charged to anyone's data."""
    return issubclass(type(thing), _PROGRAM)


def is_loops_own(kind: type) -> bool:
    """A class of what the event loop keeps for whoever waits: handles, transports, protocols, and the loop itself.

    That a selector knows a connection does not make the connection everybody's: it belongs to whoever holds it elsewhere.
    """
    known = _loops_own.get(kind)
    if known is None:
        bases = (asyncio.AbstractEventLoop, asyncio.Handle, asyncio.BaseTransport, asyncio.BaseProtocol)
        # uvloop's handles and transports are classes of their own.
        known = _loops_own[kind] = issubclass(kind, bases) or module_of(kind).startswith("uvloop")
    return known


def size_of(thing: Any) -> int:
    """Bytes of the object itself, the collector's header included, without what it refers to."""
    kind = type(thing)
    builtin = _sizeof_is_builtin.get(kind)
    if builtin is None:
        builtin = _sizeof_is_builtin[kind] = _has_builtin_sizeof(kind)
    return sys.getsizeof(thing, 0) if builtin else object.__sizeof__(thing)


def sizes_of(things: list[Any]) -> Iterator[int]:
    """`size_of` each of `things`."""
    for kind in set(map(type, things)) - _sizeof_is_builtin.keys():
        _sizeof_is_builtin[kind] = _has_builtin_sizeof(kind)
    if all(map(_sizeof_is_builtin.__getitem__, set(map(type, things)))):
        return map(sys.getsizeof, things, repeat(0))
    return map(size_of, things)


def _has_builtin_sizeof(kind: type) -> bool:
    # One that is written in Python is a plain function.
    return type(_class_attribute(kind, "__sizeof__")) is not FunctionType


def _class_attribute(kind: type, name: str) -> Any:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def module_of(kind: type) -> str:
    """The module of a class; "" where the class keeps something else under that name, as some of Cython do."""
    module = kind.__module__
    return module if type(module) is str else ""


def type_name(kind: type) -> str:
    """`asyncio.Queue`, `deque`, `app.Session`: the top package and the class; builtins and collections by their bare name."""
    module = module_of(kind).partition(".")[0]
    name = kind.__qualname__[:80]
    return name if module in ("builtins", "collections", "_io") else f"{module.lstrip('_')}.{name}"


def is_shared_constant(thing: Any) -> bool:
    """Small numbers and strings that CPython keeps once for everybody."""
    kind = type(thing)
    if kind is int:
        return bool(-6 < thing < 257)
    if kind is str or kind is bytes:
        return len(thing) < 2
    return kind in _IGNORED


class LateError(Exception):
    """A walk over the graph did not come to its end in its time. `visited` is how many objects it had come to by then."""

    def __init__(self, visited: int) -> None:
        super().__init__(f"{visited:,} objects were visited")
        self.visited = visited


def kinds_below(kind: type) -> frozenset[type]:
    """A class and all that derive from it, without asking any of them.

    A class whose metaclass has an `__eq__` or `__hash__` of its own is left out: to put it into a set would run them. (One of
    typing's warns there since Python 3.14.)
    """
    found, left = {id(kind): kind}, [kind]
    while left:
        # A class may have a metaclass with a method of this name.
        fresh: list[type] = type.__subclasses__(left.pop())
        for below in fresh:
            if id(below) not in found:
                found[id(below)] = below
                left.append(below)
    return frozenset(below for below in found.values() if _is_hashed_by_identity(type(below)))


def _is_hashed_by_identity(metaclass: type) -> bool:
    return all(getattr(metaclass, name) is getattr(type, name) for name in ("__hash__", "__eq__"))


def of_kinds(things: list[Any], kinds: frozenset[type]) -> Iterator[Any]:
    """Those of `things` whose class is one of `kinds` itself."""
    return compress(things, map(kinds.__contains__, map(type, things)))


def in_time(things: list[Any], until: float, visited: Callable[[], int]) -> Iterator[list[Any]]:
    """`things` in lists of some thousands, as long as it is not yet `until` (monotonic seconds).

    Raises LateError after that, with what `visited` says.
    """
    for start in range(0, len(things), _BATCH):
        if time.monotonic() > until:
            raise LateError(visited())
        yield things[start : start + _BATCH]


def reached(
    start: Iterable[Any], stop: AbstractSet[int], *, until: float = math.inf, found: set[int] | None = None
) -> set[int]:
    """Ids of all that can be reached from `start` without passing through what `stop` names; `stop` is not in it.

    found   what an earlier walk reached: it is added to, and not walked through again
    Raises LateError where it is not done `until` then (monotonic seconds).
    """
    seen = set() if found is None else found
    seen |= stop
    level: list[Any] = [thing for thing in start if id(thing) not in seen]
    seen.update(id(thing) for thing in level)
    ignored = _IGNORED
    while level:
        following: list[Any] = []
        for batch in in_time(level, until, seen.__len__):
            for referent in all_referents(batch):
                kind = type(referent)
                if kind in ignored:
                    continue
                key = id(referent)
                if key not in seen:
                    seen.add(key)
                    if kind is not str and kind is not bytes and kind is not int:
                        following.append(referent)
        level = following
    seen -= stop
    return seen


def search(
    start: Iterable[Any],
    wanted: Iterable[Any],
    *,
    until: float = math.inf,
    closed: AbstractSet[int] = frozenset(),
    found: dict[int, Any] | None = None,
) -> dict[int, Any]:
    """Breadth first from `start` until all of `wanted` are found: id of an object -> the object that it was found through.

    A root maps to None. Loops are not passed through: that a loop knows a task explains nothing.

    closed   ids of what is not passed through either
    found    what an earlier search found, to which this one adds
    Raises LateError where it is not done `until` then (monotonic seconds).
    """
    missing = {id(thing) for thing in wanted}
    parents: dict[int, Any] = {} if found is None else found
    level: list[Any] = []
    for thing in start:
        if id(thing) not in parents and id(thing) not in closed:
            parents[id(thing)] = None
            level.append(thing)
    missing.difference_update(parents)
    ignored, loops = _IGNORED, kinds_below(asyncio.AbstractEventLoop)
    while level and missing:
        following: list[Any] = []
        for batch in in_time(level, until, parents.__len__):
            for thing in batch:
                if type(thing) in loops:
                    continue
                for referent in referents(thing):
                    key = id(referent)
                    if key in parents or key in closed or type(referent) in ignored:
                        continue
                    parents[key] = thing
                    following.append(referent)
        missing.difference_update(map(id, following))
        level = following
    return parents
