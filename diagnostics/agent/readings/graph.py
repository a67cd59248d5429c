"""The graph of live objects: an object's referents, the roots, and an object's size.

Referents are those of `gc.get_referents`, read in a forked child where nothing changes. Modules are the exception, because a
C module's traverse function may visit more than the module owns: that of CPython 3.12's `_asyncio` visits freed iterators on
its free list. Taking a reference to one and dropping it puts it on that list a second time, and the list becomes a cycle. So
the only referent of a module is its `__dict__`, whatever it is written in. The keys of a dictionary are referents, too, which
CPython leaves out where all of them are strings (`dict_traverse`): a string is in no cycle. Objects that the garbage collector
does not track (bytes, strings, numbers, dictionaries of such) are in none of its lists and are reached through their holders.
Instances of classes that cannot be put into a set are left out (classes.py).

Nothing here calls the application's code: no `__eq__`, no property, no `__sizeof__` of its own, and no `isinstance`, which
reads an object's `__class__` (a proxy computes that with code).
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
from itertools import chain, repeat
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from ..loops.asyncio_tasks import alive_tasks
from ..loops.frames import locals_of
from .classes import (
    find_unhashable,
    hashable,
    item_size_of,
    kinds_below,
    left_out,
    module_of,
    mro_of,
    names_in,
)
from .walk.parents import Parents
from .walk.steps import Addresses, kinds, of_kinds

__all__ = [
    "ATOMS",
    "LateError",
    "all_referents",
    "has_fixed_size",
    "in_time",
    "is_loops_own",
    "is_ours",
    "is_program",
    "is_shared_constant",
    "module_roots",
    "namespace_of",
    "parent_of",
    "program_roots",
    "reached",
    "referents",
    "roots",
    "running_locals",
    "search",
    "settle",
    "size_of",
    "sizes_of",
    "tracked",
]

# Types whose instances have no referents; the collector does not track them.
ATOMS = frozenset({bytes, bytearray, str})
# Singletons without referents: never visited.
_IGNORED = frozenset({type(None), bool, type(Ellipsis), type(NotImplemented)})

_TEXT = frozenset({str})
# Types of most objects in a program, whose instances refer to nothing.
_LEAVES = ATOMS | _IGNORED | {int, float}

# Objects in one call of `gc.get_referents`: enough to make the call's own cost small; a walk reads the clock after each.
_BATCH = 2_000

_PROGRAM = (ModuleType, FunctionType, BuiltinFunctionType, CodeType, type)

# The name under which this copy of the package was loaded: a service may import `diagnostics` itself as well.
_PACKAGE = __name__.rpartition(".readings")[0]
_AGENT = str(Path(__file__).parent.parent)

# ModuleType's own `__dict__`, also where a subclass overrides it.
namespace_of = vars(ModuleType)["__dict__"].__get__

_sizeof_is_builtin: dict[type, bool] = {}
_fixed_size: dict[type, bool] = {}
_loops_own: dict[type, bool] = {}


def referents(thing: Any) -> list[Any]:
    """The direct referents of `thing`: of a module its namespace, of a code object, which has no traverse, its constants; of a
    dictionary its keys as well as its values, and some of these twice.
    """
    kind = type(thing)
    if kind is CodeType:
        return [thing.co_consts]
    if issubclass(kind, ModuleType):
        return [namespace_of(thing)]
    if issubclass(kind, dict):
        return hashable(gc.get_referents(thing)) + _text_keys([thing])
    return hashable(gc.get_referents(thing))


def all_referents(things: list[Any]) -> list[Any]:
    """`referents` of all `things`, by one call where none of them is a module, a code object or a dictionary."""
    met = kinds(things)
    odd = frozenset(kind for kind in met if kind is CodeType or issubclass(kind, ModuleType))
    mappings = frozenset(kind for kind in met if issubclass(kind, dict))
    keys = _text_keys(of_kinds(things, mappings)) if mappings else []
    if not odd:
        return hashable(gc.get_referents(*things)) + keys
    plain = [thing for thing in things if type(thing) not in odd]
    return (
        hashable(gc.get_referents(*plain))
        + keys
        + [inside for thing in of_kinds(things, odd) for inside in referents(thing)]
    )


def _text_keys(mappings: Iterable[Any]) -> list[Any]:
    """The strings among the keys of dictionaries, without calling a subclass's methods."""
    keys = list(chain.from_iterable(map(dict.keys, mappings)))
    return of_kinds(hashable(keys), _TEXT)


def tracked() -> tuple[list[Any], str | None]:
    """All objects that the collector tracks, and a sentence on those that are left out, None where there are none.

    To be called first by every walk: what is left out is found anew.
    """
    find_unhashable()
    everything = gc.get_objects()
    why = left_out(everything)
    return (everything if why is None else hashable(everything)), why


def roots() -> list[Any]:
    """Modules, classes, unfinished tasks, and the locals of this thread's frames. The locals of other threads' frames, read
    before the fork by `threads.frames_with_locals`, are for the caller to add.

    The agent's own modules, classes and frames are left out. A task that is done is no root: it lives only while something
    refers to it.
    """
    return [*program_roots(), *(task for task in alive_tasks() if not task.done()), *running_locals()]


def program_roots() -> list[Any]:
    """All modules and classes but the agent's own."""
    classes = [kind for kind in of_kinds(hashable(gc.get_objects()), kinds_below(type)) if not is_ours(module_of(kind))]
    return [*module_roots(), *classes]


def module_roots() -> list[Any]:
    """All modules but the agent's."""
    return [*(module for name, module in list(sys.modules.items()) if not is_ours(name)), builtins]


def is_ours(module: str) -> bool:
    """Whether a module of this name is the agent's, in the copy that is running here."""
    return module == _PACKAGE or module.startswith(_PACKAGE + ".")


def running_locals() -> list[Any]:
    """The values of all locals of this thread's frames, the agent's frames left out."""
    values: list[Any] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_AGENT):
            values.extend(locals_of(frame).values())
        frame = frame.f_back
    return hashable(values)


def is_program(thing: Any) -> bool:
    """Whether this is a module, class, function or code object: these are never charged to a stream."""
    return issubclass(type(thing), _PROGRAM)


def is_loops_own(kind: type) -> bool:
    """Whether this is a class of event loops, handles, transports or protocols.

    The loop refers to every connection through its selector; that must not make the connection shared by all streams.
    """
    is_own = _loops_own.get(kind)
    if is_own is None:
        bases = (asyncio.AbstractEventLoop, asyncio.Handle, asyncio.BaseTransport, asyncio.BaseProtocol)
        # uvloop's handles and transports are classes of their own.
        is_own = _loops_own[kind] = issubclass(kind, bases) or module_of(kind).startswith("uvloop")
    return is_own


def size_of(thing: Any) -> int:
    """Bytes of the object itself, its GC header included, its referents not."""
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
    # A `__sizeof__` that is written in Python is a plain function.
    return type(_class_attribute(kind, "__sizeof__")) is not FunctionType


def has_fixed_size(kind: type) -> bool:
    """Whether all instances of this class have the same size."""
    fixed = _fixed_size.get(kind)
    if fixed is None:
        plain = _class_attribute(kind, "__sizeof__") is names_in(object)["__sizeof__"]
        fixed = _fixed_size[kind] = plain and not item_size_of(kind)
    return fixed


def _class_attribute(kind: type, name: str) -> Any:
    return next((names_in(base)[name] for base in mro_of(kind) if name in names_in(base)), None)


def is_shared_constant(thing: Any) -> bool:
    """Whether CPython has only one such object: a small int, a str or bytes of at most one character, a singleton."""
    kind = type(thing)
    if kind is int:
        return bool(-6 < thing < 257)
    if kind is str or kind is bytes:
        return len(thing) < 2
    return kind in _IGNORED


class LateError(Exception):
    """A walk over the graph reached its deadline before its end, after `visited` objects."""

    def __init__(self, visited: int) -> None:
        super().__init__(f"{visited:,} objects were visited")
        self.visited = visited


def in_time(things: list[Any], until: float, visited: Callable[[], int]) -> Iterator[list[Any]]:
    """`things` in lists of some thousands.

    until     deadline, monotonic seconds
    visited   returns the number of objects visited so far, for the error
    Raises LateError past the deadline.
    """
    for start in range(0, len(things), _BATCH):
        if time.monotonic() > until:
            raise LateError(visited())
        yield things[start : start + _BATCH]


def reached(
    start: Iterable[Any], stop: AbstractSet[int], *, until: float = math.inf, walked: set[int] | None = None
) -> set[int]:
    """Ids of all objects reachable from `start` without passing through those whose ids are in `stop`; without these.

    walked  the set of an earlier walk: its objects are not walked again, and the new ones are added to it
    until   deadline, monotonic seconds
    Raises LateError past the deadline.
    """
    seen = set() if walked is None else walked
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
    earlier: Parents | None = None,
    through_loops: bool = False,
) -> Parents:
    """Breadth first from `start` until all of `wanted` are found. `parent_of` then finds who refers to an object.

    Of objects without referents, as strings and numbers, only those that are wanted are in the result.
    closed         ids of objects that are not passed through
    earlier        the result of an earlier search, to which this one adds
    through_loops  whether event loops are passed through: that a loop refers to a task explains nothing
    until          deadline, monotonic seconds
    Raises LateError past the deadline.
    """
    parents = Parents() if earlier is None else earlier
    first = [thing for thing in start if id(thing) not in closed]
    level = parents.reach(first, None, Addresses())
    if through_loops:
        for thing in first:
            parents.settle(id(thing), None)  # a task that refers to its loop, as each does, does not keep it
        level = Addresses().fresh(first)
    passed_by = Addresses()
    passed_by.add(closed)
    missing = [thing for thing in wanted if id(thing) not in parents]
    loops = frozenset() if through_loops else kinds_below(asyncio.AbstractEventLoop)
    while level and missing:
        leaves = Addresses()
        leaves.fresh(of_kinds(missing, _LEAVES))
        following: list[Any] = []
        for some in in_time(level, until, parents.__len__):
            # In C as far as it goes: there are millions. Who of these refers to whom is seen to where a way leads.
            met = frozenset(kinds(some))
            batch = some if met.isdisjoint(loops) else of_kinds(some, met - loops)
            inside = all_referents(batch)
            if len(leaves):
                parents.reach(leaves.among(inside), batch, passed_by)
            branches = of_kinds(inside, frozenset(kinds(inside)) - _LEAVES)
            following += parents.reach(branches, batch, passed_by)
        missing = [thing for thing in missing if id(thing) not in parents]
        level = following
    return parents


def settle(things: Iterable[Any], parents: Parents) -> None:
    """Find out which one object refers to each of `things` that a search has reached, and to each that is on the way there."""
    heads = {id(thing): thing for thing in things if id(thing) in parents}
    while heads:
        together: dict[int, set[int]] = {}
        near: dict[int, list[Any]] = {}
        for key in heads:
            some = parents.of(key)
            if some is not None and len(some) > 1:
                near[id(some)] = some
                together.setdefault(id(some), set()).add(key)
        # All that the same objects may refer to at once: one of these may be a list of millions.
        for place, open_ones in together.items():
            for each in near[place]:
                if not open_ones:
                    break
                for key in open_ones.intersection(map(id, referents(each))):
                    parents.settle(key, [each])
                    open_ones.discard(key)
        heads = {id(each): each for key in heads for each in parents.of(key) or ()}


def parent_of(thing: Any, parents: Parents) -> list[Any]:
    """The object that refers to `thing` on the way that a search has found, as `settle` has left it; none for a root."""
    return parents.of(id(thing)) or []
