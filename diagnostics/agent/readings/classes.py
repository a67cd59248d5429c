"""What is read of a class, without running any code of its metaclass.

A metaclass may have a `__getattribute__`, `__eq__` or `__hash__` of its own. So a class is read by the descriptors of `type`.
Only a hash must be asked for, by every set that the class is put into (typing_extensions' protocols have such a metaclass).
Where that fails, walks leave the instances of the class out, and `left_out` says so.
"""

from __future__ import annotations

import builtins
import types
from typing import Any

__all__ = [
    "basic_size_of",
    "find_unhashable",
    "flags_of",
    "full_name",
    "has_own_memory",
    "hashable",
    "item_size_of",
    "kinds_below",
    "left_out",
    "module_of",
    "mro_of",
    "name_of",
    "names_in",
    "qualname_of",
    "type_name",
]

_OF_TYPE = vars(type)
basic_size_of = _OF_TYPE["__basicsize__"].__get__
item_size_of = _OF_TYPE["__itemsize__"].__get__
flags_of = _OF_TYPE["__flags__"].__get__
mro_of = _OF_TYPE["__mro__"].__get__
# A class's own attributes, as a read-only mapping.
names_in = _OF_TYPE["__dict__"].__get__
name_of = _OF_TYPE["__name__"].__get__
qualname_of = _OF_TYPE["__qualname__"].__get__
_module_of = _OF_TYPE["__module__"].__get__

# A class that is made while the program runs, as by every `class` statement (Py_TPFLAGS_HEAPTYPE).
_HEAP_TYPE = 1 << 9
_OF_STATEMENT = frozenset({"__slots__", "__dict__", "__weakref__"})
# Modules whose C types have what their size tells.
_SIZED = frozenset(
    {
        "", "builtins", "types", "collections", "functools", "itertools", "operator", "weakref", "_weakref", "_asyncio",
        "_contextvars", "_thread", "_socket", "_functools", "_abc",
    }
)  # fmt: skip

# CPython's own static types are data of one file, so that all others lie elsewhere in memory. A type whose name in C has no dot
# calls itself one of `builtins`, whoever made it (Pillow's ImagingCore).
_STATIC = [
    id(kind)
    for module in (builtins, types)
    for kind in vars(module).values()
    if isinstance(kind, type) and not flags_of(kind) & _HEAP_TYPE
]
_INTERPRETERS = range(min(_STATIC), max(_STATIC) + 1)

# By id: the classes that `find_unhashable` found last.
_unhashable: dict[int, type] = {}


def module_of(kind: type) -> str:
    """The name of a class's module; "" where its `__module__` is no string, as in some Cython classes."""
    try:
        module = _module_of(kind)
    except AttributeError:  # deleted
        return ""
    return module if type(module) is str else ""


def type_name(kind: type) -> str:
    """`asyncio.Queue`, `deque`, `app.Session`: the top package and the class; builtins and collections by their bare name."""
    module = module_of(kind).partition(".")[0]
    name = str(qualname_of(kind))[:80]
    return name if module in ("builtins", "collections", "_io") else f"{module.lstrip('_')}.{name}"


def full_name(kind: type) -> str:
    """The name of a class in a census: with its module, builtins without."""
    module = module_of(kind)
    name = str(qualname_of(kind))
    return (name if module in ("", "builtins") else f"{module}.{name}")[:120]


def has_own_memory(kind: type) -> bool:
    """Whether instances may have memory that their size does not tell: C code, other than the builtins', made it or a base."""
    return any(_is_of_c(base) and not _is_sized(base) for base in mro_of(kind))


def _is_sized(kind: type) -> bool:
    module = module_of(kind).partition(".")[0]
    if module == "builtins" and not flags_of(kind) & _HEAP_TYPE:
        return id(kind) in _INTERPRETERS
    return module in _SIZED


def _is_of_c(kind: type) -> bool:
    """Whether a class was made by C code. What a `class` statement makes has slots, or a dictionary or weak references."""
    if not flags_of(kind) & _HEAP_TYPE:
        return True
    return _OF_STATEMENT.isdisjoint(name for base in mro_of(kind) for name in names_in(base) if type(name) is str)


def kinds_below(kind: type) -> frozenset[type]:
    """A class and all its subclasses, those left out whose metaclass has an `__eq__` or `__hash__` of its own."""
    return frozenset(below for below in _below(kind).values() if _is_hashed_by_identity(type(below)))


def find_unhashable() -> None:
    """Look for the classes whose instances `hashable` leaves out from now on; 10 ms for ten thousand classes.

    To be called in a forked child: it tries the hash of each class that has one of its own.
    """
    _unhashable.clear()
    _unhashable.update((key, kind) for key, kind in _below(object).items() if not _has_hash(kind))


def hashable(things: list[Any]) -> list[Any]:
    """Those of `things` whose class can be put into a set."""
    return [thing for thing in things if id(type(thing)) not in _unhashable] if _unhashable else things


def left_out(things: list[Any]) -> str | None:
    """A sentence on those of `things` that `hashable` leaves out; None where there are none."""
    found = {key: kind for thing in things if (key := id(kind := type(thing))) in _unhashable} if _unhashable else {}
    if not found:
        return None
    names = sorted(map(type_name, found.values()))
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more classes" if len(names) > 3 else "")
    return f"instances of {some}: their class has no hash, or its metaclass fails to tell it"


def _below(kind: type) -> dict[int, type]:
    kinds, left = {id(kind): kind}, [kind]
    while left:
        # Called on `type`, since a metaclass may override the method.
        fresh: list[type] = type.__subclasses__(left.pop())
        for below in fresh:
            if id(below) not in kinds:
                kinds[id(below)] = below
                left.append(below)
    return kinds


def _has_hash(kind: type) -> bool:
    if _is_hashed_by_identity(type(kind)):
        return True
    try:
        hash(kind)
    except Exception:  # noqa: BLE001  # the application's code may raise anything: the class is left out, and named
        return False
    return True


def _is_hashed_by_identity(metaclass: type) -> bool:
    return metaclass is type or all(
        next(names_in(base)[name] for base in mro_of(metaclass) if name in names_in(base)) is names_in(object)[name]
        for name in ("__hash__", "__eq__")
    )
