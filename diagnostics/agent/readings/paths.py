"""Names a path through the object graph.

    Task 'relay' -> stream (app.py:41) -> local 'queue' -> asyncio.Queue._queue -> deque[17] -> bytes

`redaction` decides which names are shown, and of which only the shape; a value never is.
"""

from __future__ import annotations

import contextvars
import functools
import gc
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

from ..loops.frames import locals_of
from ..loops.futures import declares
from ..redaction import is_programs, key_shown, name_allowed, names_shown
from .classes import mro_of, name_of, names_in, type_name
from .graph import parent_of
from .hooks import Hooks
from .running.awaits import frame_key, own_frame
from .running.tasks import name_pattern
from .running.threads import ThreadFrame
from .walk.parents import Parents

__all__ = ["describe", "is_loop", "way_to"]

# Of a longer way the middle is left out.
_MAX_PARTS, _LAST_PARTS = 24, 4
# Looking for a child by identity in a container costs its length.
_MAX_ENTRIES = 100_000

_DICTIONARIES = frozenset({dict, OrderedDict, defaultdict})
_CONTAINERS = _DICTIONARIES | {list, tuple, set, frozenset, deque}
# What functools.lru_cache and functools.cache make of a function.
_CACHE: Any = type(functools.cache(len))
# Internal objects between a frame and its locals, or a context and its values: left out of the path.
_MACHINERY = frozenset({"cell", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "FutureIter"})


def way_to(thing: Any, parents: Parents) -> list[Any]:
    """The objects from a root to `thing`, from the result of `graph.search`; empty where it was not reached."""
    if id(thing) not in parents:
        return []
    way = [thing]
    while parent := parent_of(way[-1], parents):
        way += parent
    return way[::-1]


def describe(
    way: Sequence[Any], *, lengths: bool = True, filled: Callable[[list[Any]], int | None] | None = None
) -> str:
    """The path in words.

    lengths   with the lengths of containers; without them like paths of different streams are equal
    filled    how many entries a list has that is being filled, None for other lists; see newness.py
    """
    parts = list(_parts(way, _Lengths(filled) if lengths else None))
    if len(parts) > _MAX_PARTS:
        # Ways to objects of several types that one container holds have a beginning in common, and ends of any length.
        parts = [*parts[: _MAX_PARTS - _LAST_PARTS], "...", *parts[-_LAST_PARTS:]]
    return " -> ".join(parts)


class _Lengths:
    """How many entries containers have, in words."""

    def __init__(self, filled: Callable[[list[Any]], int | None] | None) -> None:
        self._filled = filled

    def of(self, thing: Any) -> str:
        if type(thing) is deque and thing.maxlen is not None:
            return f"[{len(thing)}{_of_bound(thing.maxlen)}]"
        entries = self._filled(thing) if type(thing) is list and self._filled is not None else None
        return f"[{len(thing)}]" if entries is None else f"[{entries}{_of_bound(len(thing))}]"


def _parts(way: Sequence[Any], lengths: _Lengths | None) -> Iterator[str]:
    way = [thing for thing in way if not _is_machinery(thing)]
    skip = False
    for position, thing in enumerate(way):
        if skip:  # a namespace: its owner's part names the attribute already
            skip = False
            continue
        child = way[position + 1] if position + 1 < len(way) else None
        grandchild = way[position + 2] if position + 2 < len(way) else None
        namespace = type(child) is dict and child is _namespace(thing)
        yield from _part(thing, grandchild if namespace else child, namespace, lengths)
        skip = namespace


def _part(thing: Any, child: Any, in_namespace: bool, lengths: _Lengths | None) -> Iterator[str]:
    """The words for `thing` on the path to `child`; none for an internal object (`_MACHINERY`)."""
    kind = type(thing)
    if kind is Hooks:
        yield thing.name
    elif kind is ThreadFrame:
        yield from _of_thread(thing, child, in_namespace)
    elif declares(kind, "get_coro"):
        yield f"Task {name_pattern(thing.get_name())!r}" if names_shown() else "Task"
    elif is_loop(kind):
        name = _attribute(thing, child, in_namespace) if child is not None else None
        yield f"event loop {type_name(kind)}" + (f".{name}" if name else "")
    elif issubclass(kind, ModuleType):
        name = _name_of(vars(thing), child) if in_namespace else None
        yield f"module {thing.__name__[:80]}" + (f" -> global {name!r}" if name else "")
    elif issubclass(kind, type):
        name = _name_of(vars(thing), child)
        yield f"class {type_name(thing)}" + (f".{name}" if name else "")
    elif frame_key(thing) is not None:
        yield from _of_frame(thing, child)
    elif kind is contextvars.Context:
        named = (f"context variable {var.name[:80]!r}" for var in thing if thing[var] is child)
        yield next(named, "context") if names_shown() else "context"
    elif kind is FunctionType:
        yield f"function {thing.__qualname__[:80]}"
    elif kind is MethodType:
        yield f"method {thing.__func__.__qualname__[:80] if type(thing.__func__) is FunctionType else '?'}"
    elif kind in _CONTAINERS:
        yield _of_container(thing, child, lengths)
    elif kind is _CACHE:
        yield type_name(kind) + (_of_bound(_CACHE.cache_info(thing).maxsize) if lengths is not None else "")
    else:
        name = _attribute(thing, child, in_namespace) if child is not None else None
        yield type_name(kind) + (f".{name}" if name else "")


def is_loop(kind: type) -> bool:
    """Whether this is the class of an event loop, asyncio's or another one's."""
    return declares(kind, "call_soon_threadsafe")


def _of_thread(thing: ThreadFrame, child: Any, in_namespace: bool) -> Iterator[str]:
    function, file, line = thing.key
    thread = f"thread {name_pattern(thing.thread)!r}" if names_shown() else "thread"
    yield f"{thread} -> {function} ({PurePath(file).name}:{line})"
    # Names of locals stand in the source code and may be shown.
    name = next((name for name, value in thing.locals.items() if value is child), None) if in_namespace else None
    if name is not None and names_shown():
        yield f"local {name!r}"


def _of_frame(thing: Any, child: Any) -> Iterator[str]:
    key = frame_key(thing)
    assert key is not None
    yield f"{key[0]} ({PurePath(key[1]).name}:{key[2]})"
    frame = own_frame(thing)
    if frame is None or child is None:
        return
    name = next((name for name, value in locals_of(frame).items() if value is child), None)
    if name is not None and frame_key(child) is None and names_shown():
        yield f"local {name!r}"


def _of_bound(most: int | None) -> str:
    return " without a bound" if most is None else f" of at most {most}"


def _of_container(thing: Any, child: Any, lengths: _Lengths | None) -> str:
    text = type_name(type(thing)) + (lengths.of(thing) if lengths is not None else "")
    if type(thing) in _DICTIONARIES and child is not None:
        text += key_shown(_key_of(thing, child), length=lengths is not None)
    return text


def _key_of(namespace: Any, child: Any) -> Any:
    if len(namespace) > _MAX_ENTRIES:
        return None
    return next((key for key, value in namespace.items() if value is child), None)


def _name_of(namespace: Any, child: Any) -> str | None:
    """The name of a module's global or a class's attribute that is `child`; None where it may not be shown."""
    name = _key_of(namespace, child)
    return name if names_shown() and name_allowed(name) else None


def _attribute(thing: Any, child: Any, in_namespace: bool) -> str | None:
    """The attribute by which an object refers to `child`, found without running any of its code."""
    if not names_shown():
        return None
    namespace = _namespace(thing)
    if namespace is not None and (in_namespace or len(namespace) <= _MAX_ENTRIES):
        name = _key_of(namespace, child)
        if is_programs(name) or (name_allowed(name) and _declared(type(thing), name)):
            return str(name)
    for base in mro_of(type(thing)):
        for name, slot in names_in(base).items():
            if type(slot) is MemberDescriptorType and _slot(slot, thing) is child:
                return str(name)
    return None


def _declared(kind: type, name: str) -> bool:
    """Whether a class or a base declares this name: as an attribute, an annotation, or a field of a dataclass or model."""
    for base in mro_of(kind):
        inside = names_in(base)
        if name in inside:
            return True
        for where in ("__annotations__", "__dataclass_fields__", "__pydantic_fields__"):
            names = inside.get(where)
            if type(names) is dict and name in names:
                return True
    return False


def _slot(slot: MemberDescriptorType, thing: Any) -> Any:
    try:
        return slot.__get__(thing)
    except AttributeError:  # never set
        return None


def _namespace(thing: Any) -> dict[str, Any] | None:
    """The `__dict__` of an instance, module or class; of a thread's frame its locals."""
    if type(thing) is ThreadFrame:
        return thing.locals
    if issubclass(type(thing), type):
        # `vars` of a class is a read-only proxy; its referent is the dictionary.
        return next((inside for inside in gc.get_referents(names_in(thing)) if type(inside) is dict), None)
    try:
        namespace = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None
    return namespace if type(namespace) is dict else None


def _is_machinery(thing: Any) -> bool:
    name = name_of(type(thing))
    return name in _MACHINERY or name.startswith("hamt")
