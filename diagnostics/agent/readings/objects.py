"""A census of live objects by type, and why objects of a type are alive.

A census counts all objects that the garbage collector tracks, and their direct referents that it does not track: strings,
numbers, instances of other types without a GC header, and untracked dictionaries and tuples. Each object counts once, with
its own size. Subtracting two censuses shows which types grow; samples of those are then traced back to a root. An object to
which no other object refers is in no census; `blocks` counts it where it is small.

The collector is not run first: in a forked child, finalizers would act on the outside world for a process that is not theirs.
Garbage in cycles that the service has not collected yet is therefore counted, and shown as reached from nowhere.
"""

from __future__ import annotations

import bisect
import gc
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from types import CodeType
from typing import Any

from . import blocks
from .attributes import Attributes
from .graph import (
    LateError,
    all_referents,
    in_time,
    is_ours,
    is_shared_constant,
    module_of,
    of_kinds,
    sizes_of,
)
from .holders import LOST_TEXT, OURS, ROOT_UNKNOWN, Ways, holder_of
from .newness import FirstLook
from .running.threads import ThreadFrame

__all__ = ["LOST_TEXT", "NOT_COVERED", "census", "explain"]

NOT_COVERED = (
    "memory that C extensions keep outside of Python objects",
    "contents that an object does not report as its size; the attributes of instances without a dictionary are estimated",
    "garbage in cycles that is not collected yet counts as alive",
)
# Of the samples of a type that no root reaches so many are examined for cycles and C holders.
_MOST_UNREACHED = 4
# Types beyond this many are summed up as one: a program may create classes without end.
_MAX_TYPES = 2_000
_OTHER = "(other types)"

_PLAIN = frozenset({dict, tuple})
# Types without a GC header that are not counted: code and singletons are no data.
_PROGRAM: frozenset[type] = frozenset({CodeType, type(None), type(Ellipsis), type(NotImplemented), bool})
# Numbers are worth counting: of a list with a thousand floats the list takes 8 KiB and the floats 24 KiB.
_NUMBERS = frozenset({int, float})
# Types whose objects keep their size.
_FIXED: frozenset[type] = frozenset({str, bytes, int, float, tuple, frozenset})
# The id of each untracked object is kept to the end of the census: beyond this many, numbers are left out.
_MAX_NUMBERS = 2_000_000


def census(until: float = math.inf, first: FirstLook | None = None) -> dict[str, Any]:
    """`{"types": {name: [count, bytes]}, "objects", "seconds", "time", ...}`. To be called in a forked child.

    Instances of the agent's own classes are left out.
    until   deadline, monotonic seconds: "partial" says in words how much was not counted by then, None where nothing was
    first   here every object is marked, for a later `explain`
    "blocks" is the result of `blocks.read`, taken first, before this reading allocates any block.
    """
    began = time.monotonic()
    small = blocks.read(until)
    counts: Counter[type] = Counter()
    sizes: Counter[type] = Counter()
    everything, attributes = _Everything(until), Attributes()
    for things in everything:
        if first is not None:
            first.mark(things)
        attributes.look(things)
        counts.update(map(type, things))
        of_each = list(sizes_of(things))
        if first is not None:
            first.note_sizes(things, of_each)
        for kind, size in zip(map(type, things), of_each, strict=True):
            sizes[kind] += size
    for kind, each in attributes.bytes_each().items():
        sizes[kind] += round(counts[kind] * each)
    types: dict[str, list[int]] = {}
    for kind, size in sizes.most_common():
        if is_ours(module_of(kind)) or (everything.too_many_numbers and kind in _NUMBERS):
            continue
        name = _full_name(kind)
        if name not in types and len(types) >= _MAX_TYPES:
            name = _OTHER
        row = types.setdefault(name, [0, 0])
        row[0] += counts[kind]
        row[1] += size
    return {
        "types": types,
        "objects": sum(count for count, _size in types.values()),
        "seconds": time.monotonic() - began,
        "time": time.time(),
        "partial": everything.left_out,
        "blocks": small,
        # Whether numbers were counted: a census with and one without numbers cannot be subtracted.
        "numbers": not everything.too_many_numbers,
        "not_covered": [*filter(None, [everything.left_out, everything.too_many_numbers]), *NOT_COVERED],
    }


def explain(
    types: list[str],
    samples: int,
    until: float = math.inf,
    *,
    first: FirstLook | None = None,
    threads: Sequence[ThreadFrame] = (),
) -> dict[str, Any]:
    """Why objects of these types are alive: `samples` of each, traced from a root.

    first    marks of a first census: samples are drawn among the objects that are new since then, and the large ones that have
             grown, each standing for the same number of bytes. None: they are drawn among the younger half
    threads  frames of other threads that `threads.frames_with_locals` returned before the fork
    until    deadline, monotonic seconds

    To be called in a forked child. Returns `{"paths": {type: [{"path", "samples", "root"}, ...]}}`, the commonest path first.
    `root` is the kind of the path's root (module, class, task, thread, frame), "cycle" for garbage that waits for the
    collector, "lost" for an object that C code holds, or "unknown".
    """
    by_type: dict[str, list[tuple[Any, int]]] = {name: [] for name in types}
    names: dict[type, str] = {}
    everything = _Everything(until)
    for things in everything:
        for kind in set(map(type, things)) - names.keys():
            names[kind] = _full_name(kind)
        kinds = frozenset(kind for kind in set(map(type, things)) if names[kind] in by_type)
        _sort(_weighed(list(of_kinds(things, kinds)), first), names, by_type)
    # This function's own lists and dictionaries are among all tracked objects, and must not become samples.
    ours = {id(by_type), id(names), *map(id, by_type.values())}
    sampled = {
        name: _spread([pair for pair in pairs if id(pair[0]) not in ours], samples, everything=first is not None)
        for name, pairs in by_type.items()
    }
    del by_type
    try:
        if everything.left_out is not None:
            raise LateError(0)
        ways = Ways((thing for things in sampled.values() for thing in things), threads, until)
        ways.working.update(map(id, sampled.values()))
    except LateError as late:
        unknown = f"(not known: the search was ended at its deadline, when {late})"
        return {
            "paths": {
                name: [{"path": unknown, "samples": len(things), "root": ROOT_UNKNOWN}]
                for name, things in sampled.items()
            }
        }
    return {"paths": {name: _commonest_ways(things, ways) for name, things in sampled.items()}}


def _sort(
    weighed: Iterable[tuple[Any, int]], names: dict[type, str], by_type: dict[str, list[tuple[Any, int]]]
) -> None:
    for thing, weight in weighed:
        by_type[names[type(thing)]].append((thing, weight))


def _weighed(things: list[Any], first: FirstLook | None) -> Iterator[tuple[Any, int]]:
    """Each of these objects with its size; after a first census, new ones with their sizes, and old ones with their growth."""
    if first is None:
        yield from zip(things, sizes_of(things), strict=True)
        return
    new = first.new(things)
    yield from zip(new, sizes_of(new), strict=True)
    growing = frozenset(map(type, things)) - _FIXED
    if growing and len(new) < len(things):
        fresh = set(map(id, new))
        old = [thing for thing in of_kinds(things, growing) if id(thing) not in fresh]
        yield from first.grown(old, sizes_of(old))


def _commonest_ways(things: list[Any], ways: Ways) -> list[dict[str, Any]]:
    """Paths that differ only in the lengths of containers are one; its example is the first of them."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    # A large object may be several of the samples, and is traced once.
    seen: dict[int, tuple[tuple[str, str], str]] = {}
    # Each step of examining an unreached object searches all objects: only some are examined, and stand for the rest.
    unreached: list[int] = []
    for place in range(len(things)):
        key = id(things[place])
        if key not in seen and key not in ways.parents:
            if len(unreached) >= _MOST_UNREACHED:
                seen[key] = seen[unreached[place % len(unreached)]]
            else:
                unreached.append(key)
        if key not in seen:
            root, kind, example = holder_of(things[place : place + 1], ways)
            seen[key] = (root, kind), example
        holder, example = seen[key]
        if holder[0] != OURS:
            counts[holder] += 1
            examples.setdefault(holder, example)
    return [{"path": examples[holder], "samples": count, "root": holder[0]} for holder, count in counts.most_common()]


class _Everything:
    """Every object of the census, once, in lists of some thousands.

    until             deadline, monotonic seconds, at which the iteration ends early
    too_many_numbers  a sentence where numbers are too many to be counted, else None
    left_out          a sentence saying how many of all objects were not reached by the deadline; None where all were
    """

    def __init__(self, until: float) -> None:
        self._until = until
        self.left_out: str | None = None
        self.too_many_numbers: str | None = None

    def __iter__(self) -> Iterator[list[Any]]:
        tracked = gc.get_objects()
        looked_at = 0
        # Ids of untracked objects that were counted.
        seen: set[int] = set()
        kinds = _Untracked()
        try:
            for batch in in_time(tracked, self._until, seen.__len__):
                yield batch
                fresh = _untracked(batch, seen, kinds)
                while fresh:
                    yield fresh
                    fresh = _untracked(list(of_kinds(fresh, _PLAIN)), seen, kinds)
                if len(seen) > _MAX_NUMBERS and self.too_many_numbers is None:
                    kinds.leave_out(_NUMBERS)
                    self.too_many_numbers = (
                        f"numbers: this service holds more than {_MAX_NUMBERS:,} of them and of texts"
                    )
                looked_at += len(batch)
        except LateError:
            of = f"{looked_at:,} of the {len(tracked):,} objects that the collector tracks"
            self.left_out = f"all but {of}, and what these hold directly: the reading was ended at its deadline"


class _Untracked:
    """The classes whose instances the collector does not track, or not always; added to as instances are met."""

    def __init__(self) -> None:
        self.met: set[type] = set(_PROGRAM)
        self.kinds: frozenset[type] = _PLAIN

    def among(self, things: list[Any]) -> frozenset[type]:
        fresh = set(map(type, things)) - self.met
        if fresh:
            self.met |= fresh
            self.kinds |= {kind for kind in fresh if blocks.has_no_header(kind)}
        return self.kinds

    def leave_out(self, kinds: frozenset[type]) -> None:
        self.met |= kinds
        self.kinds -= kinds


def _untracked(holders: list[Any], seen: set[int], kinds: _Untracked) -> list[Any]:
    """Direct referents of `holders` that the collector does not track and whose ids are not in `seen`; adds their ids to it."""
    untracked = []
    referents = all_referents(holders)
    for thing in of_kinds(referents, kinds.among(referents)):
        key = id(thing)
        if key not in seen and not gc.is_tracked(thing) and not is_shared_constant(thing):
            seen.add(key)
            untracked.append(thing)
    return untracked


def _spread(weighed: list[tuple[Any, int]], samples: int, *, everything: bool) -> list[Any]:
    """`samples` of the things, each standing for the same number of bytes: a large object may be taken repeatedly.

    weighed      each with its bytes
    everything   draw from all (they are what grew); else from the later half: the collector's lists have older objects
                 first, except for the very youngest, and growing types have young objects
    """
    later = weighed if everything else weighed[len(weighed) // 2 :]
    ends = list(accumulate(weight for _, weight in later))
    if not ends:
        return []
    return [later[bisect.bisect_right(ends, (place + 0.5) * ends[-1] / samples)][0] for place in range(samples)]


def _full_name(kind: type) -> str:
    module = module_of(kind)
    return (kind.__qualname__ if module in ("", "builtins") else f"{module}.{kind.__qualname__}")[:120]
