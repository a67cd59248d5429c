"""What the attributes of instances take where they are in no dictionary.

From CPython 3.11 on an instance keeps the values of its attributes in an array of its own, which becomes part of a dictionary
when somebody asks for `__dict__`. The array is neither an object nor part of what `__sizeof__` tells: of a service that holds
many small instances it is as much memory as they are. Its size depends on the class, and on how the class has been used; so
it is measured on samples, by asking them for their dictionary, whose size has the array in it. That changes the samples, and
is therefore done in a forked child only.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from types import GetSetDescriptorType
from typing import Any, Final

from .classes import basic_size_of, flags_of, item_size_of, mro_of, names_in

__all__ = ["Attributes"]

# Of each class the last that was met in each of so many batches; the youngest are what grows.
_SAMPLES: Final = 32
# Py_TPFLAGS_MANAGED_DICT, from 3.11 on.
_MANAGED: Final = 1 << 4 if sys.version_info >= (3, 11) else 0
_EMPTY: Final = {}.__sizeof__()
_POINTER: Final = 8


class Attributes:
    """Sees the objects of a census pass by, and then tells what the attributes of a class's instances take on average."""

    def __init__(self) -> None:
        self._last: dict[type, deque[Any]] = {}
        self._without: set[type] = set()

    def look(self, things: list[Any]) -> None:
        """Remember one of each class in `things`."""
        for kind, thing in dict(zip(map(type, things), things, strict=True)).items():
            if kind in self._without:
                continue
            if kind not in self._last:
                if not flags_of(kind) & _MANAGED or _dictionary_of(kind) is None:
                    self._without.add(kind)
                    continue
                self._last[kind] = deque(maxlen=_SAMPLES)
            self._last[kind].append(thing)

    def bytes_each(self) -> dict[type, float]:
        """Of each class that has such arrays: bytes of them for an instance, on average over its samples, which are let go."""
        averages = {}
        counted = _tracked_dictionaries()
        for kind, things in self._last.items():
            dictionary = _dictionary_of(kind)
            if dictionary is not None:
                averages[kind] = sum(_array(thing, kind, dictionary, counted) for thing in things) / len(things)
        self._last.clear()  # this very object may be one of them
        return averages


def _dictionary_of(kind: type) -> Any:
    """The descriptor that gives an instance its dictionary, unless the application has put code in its place."""
    for base in mro_of(kind):
        descriptor = names_in(base).get("__dict__")
        if descriptor is not None:
            return descriptor if type(descriptor) is GetSetDescriptorType else None
    return None


def _tracked_dictionaries() -> set[int]:
    """The ids of all dictionaries that the collector tracks: they are counted as objects.

    From CPython 3.13 on an instance's dictionary shares the array, and the instance refers to the values and not to it.
    """
    return {id(thing) for thing in gc.get_objects() if type(thing) is dict} if sys.version_info >= (3, 13) else set()


def _array(thing: Any, kind: type, dictionary: Any, counted: set[int]) -> int:
    """Bytes of this instance's array; 0 where they are counted already: in its dictionary, or by the instance itself."""
    if object.__sizeof__(thing) > basic_size_of(kind) and not item_size_of(kind):
        return 0
    before = set(map(id, gc.get_referents(thing)))
    instance_dictionary = dictionary.__get__(thing)
    if id(instance_dictionary) in before or id(instance_dictionary) in counted:
        return 0
    values = dict.__sizeof__(instance_dictionary) - _EMPTY
    # In front of the values is a byte for each, and two more (new_values in CPython's Objects/dictobject.c).
    slots = values // _POINTER
    return int(values + -(-(slots + 2) // _POINTER) * _POINTER) if slots else 0
