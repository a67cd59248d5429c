"""The graph of live objects: what refers to what, where it begins, and what an object weighs.

Everything here is `gc.get_referents`, read in a forked child where nothing moves. Objects that the garbage collector does not
track (bytes, strings, numbers, dictionaries of such) have no place in its lists and are reached through their holders.
Nothing here calls the application's code: no `__eq__`, no property, no `__sizeof__` of its making, and no `isinstance`, which
asks an object of a foreign class for its `__class__` (a proxy answers that with code).
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from ..loops import alive_tasks

__all__ = [
    "ATOMS",
    "is_loops_own",
    "is_program",
    "is_shared_constant",
    "module_of",
    "reached",
    "referents",
    "roots",
    "search",
    "size_of",
    "type_name",
]

# Memory without references of its own, which the collector does not track.
ATOMS = frozenset({bytes, bytearray, str})
# Never worth a look: they refer to nothing and every one of them is shared by all.
_IGNORED = frozenset({type(None), bool, type(Ellipsis), type(NotImplemented)})

_PROGRAM = (ModuleType, FunctionType, BuiltinFunctionType, CodeType, type)

_AGENT = str(Path(__file__).parent.parent)

_sizeof_is_builtin: dict[type, bool] = {}
_loops_own: dict[type, bool] = {}


def referents(thing: Any) -> list[Any]:
    """What `thing` refers to directly. Code objects, which the collector does not know, are shown with their constants."""
    if type(thing) is CodeType:
        return [thing.co_consts]
    return gc.get_referents(thing)


def roots() -> list[Any]:
    """Where life begins: modules, classes, tasks, and the locals of the frames that run now.

    Frames of the agent are left out: what they hold is ours.
    """
    found: list[Any] = [*sys.modules.values(), builtins]
    found.extend(thing for thing in gc.get_objects() if issubclass(type(thing), type))
    found.extend(alive_tasks())
    found.extend(running_locals())
    return found


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


def is_loops_own(thing: Any) -> bool:
    """What the event loop keeps for whoever waits: handles, transports, protocols, and the loop itself.

    That a selector knows a connection does not make the connection everybody's: it belongs to whoever holds it elsewhere.
    """
    kind = type(thing)
    known = _loops_own.get(kind)
    if known is None:
        known = _loops_own[kind] = _is_loops_own(kind)
    return known


def _is_loops_own(kind: type) -> bool:
    bases = (asyncio.AbstractEventLoop, asyncio.Handle, asyncio.BaseTransport, asyncio.BaseProtocol)
    # uvloop's handles and transports are classes of their own.
    return issubclass(kind, bases) or module_of(kind).startswith("uvloop")


def size_of(thing: Any) -> int:
    """Bytes of the object itself, the collector's header included, without what it refers to."""
    kind = type(thing)
    builtin = _sizeof_is_builtin.get(kind)
    if builtin is None:
        # One that is written in Python is a plain function.
        builtin = _sizeof_is_builtin[kind] = type(_class_attribute(kind, "__sizeof__")) is not FunctionType
    return sys.getsizeof(thing, 0) if builtin else object.__sizeof__(thing)


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


def reached(start: Iterable[Any], stop: set[int]) -> set[int]:
    """Ids of all that can be reached from `start` without passing through what `stop` names; `stop` is not in it."""
    seen = set(stop)
    pending: list[Any] = [thing for thing in start if id(thing) not in seen]
    seen.update(id(thing) for thing in pending)
    get_referents, ignored = gc.get_referents, _IGNORED
    while pending:
        thing = pending.pop()
        for referent in get_referents(thing) if type(thing) is not CodeType else (thing.co_consts,):
            kind = type(referent)
            if kind in ignored:
                continue
            key = id(referent)
            if key not in seen:
                seen.add(key)
                if kind is not str and kind is not bytes and kind is not int:
                    pending.append(referent)
    return seen - stop


def search(start: Iterable[Any], wanted: Iterable[Any]) -> dict[int, Any]:
    """Breadth first from `start` until all of `wanted` are found: id of an object -> the object that it was found through.

    A root maps to None. Loops are not passed through: that a loop knows a task explains nothing.
    """
    missing = {id(thing) for thing in wanted}
    parents: dict[int, Any] = {}
    level: list[Any] = []
    for thing in start:
        if id(thing) not in parents:
            parents[id(thing)] = None
            level.append(thing)
    missing.difference_update(parents)
    ignored = _IGNORED
    while level and missing:
        following: list[Any] = []
        for thing in level:
            if issubclass(type(thing), asyncio.AbstractEventLoop):
                continue
            for referent in referents(thing):
                key = id(referent)
                if type(referent) in ignored or key in parents:
                    continue
                parents[key] = thing
                missing.discard(key)
                following.append(referent)
        level = following
    return parents
