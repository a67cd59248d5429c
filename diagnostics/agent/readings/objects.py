"""A census of live objects by type, and why objects of a type are alive.

A census counts all objects that the garbage collector tracks, and their direct referents that it does not track: strings,
numbers, instances of other types without a GC header, and untracked dictionaries and tuples. Each object counts once, with
its own size. Subtracting two censuses shows which types grow; samples of those are then traced back to a root. An object to
which no other object refers is in no census; `blocks` counts it where it is small. In a service with millions of objects a
sample of the small ones stands for all.

The collector is not run first: in a forked child, finalizers would act on the outside world for a process that is not theirs.
Garbage in cycles that the service has not collected yet is therefore counted, and shown as reached from nowhere.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..ledger import StreamLedger
from . import blocks
from .attributes import Attributes
from .classes import full_name, has_own_memory, module_of
from .everything import NUMBERS, Everything
from .graph import LateError, is_ours, sizes_of
from .holders import LOST_TEXT, OURS, ROOT_UNKNOWN, STREAM, Held, Ways, holder_of
from .newness import FirstLook
from .running.streams import open_streams
from .running.threads import ThreadFrame
from .sampling import parts_for
from .walk.picks import Picks, grew_most, spread
from .walk.steps import kinds, of_kinds

__all__ = ["LOST_TEXT", "NOT_COVERED", "Tracing", "census", "explain"]

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

# Types whose objects keep their size.
_FIXED: frozenset[type] = frozenset({str, bytes, int, float, tuple, frozenset})


class Tracing(NamedTuple):
    """What a census needs that traces what has grown.

    samples  of each type
    threads  frames of other threads that `threads.frames_with_locals` returned before the fork
    ledgers  those of the service; open streams are found without one as well, where the server is known
    """

    samples: int
    threads: Sequence[ThreadFrame] = ()
    ledgers: Iterable[StreamLedger] = ()


def census(
    until: float = math.inf,
    mark: FirstLook | None = None,
    since: FirstLook | None = None,
    tracing: Tracing | None = None,
) -> dict[str, Any]:
    """`{"types": {name: [count, bytes]}, "objects", "seconds", "time", ...}`. To be called in a forked child.

    Instances of the agent's own classes are left out.
    until     deadline, monotonic seconds: "partial" says in words how much was not counted by then, None where nothing was
    mark      here every object that is looked at is marked, for a later census and `explain`
    since     marks of a first census: the same sample is taken, and new objects in it are told from old ones
    tracing   with `since`: the types that grew are traced as well, as `explain` does, and "paths" is in the answer
    "blocks" is the result of `blocks.read`, taken first, before this reading allocates any block.
    "sample" is None where all objects were counted. Else the figures of "types" are estimates, and it is `{"share", "types"}`:
    of the small objects the share that was looked at, and of each type [how many these were, the sum of the squares of their
    sizes in bytes, how many of them are new, the sum of their squares].
    """
    began = time.monotonic()
    small = blocks.read(until)
    everything = Everything(until, since.parts if since is not None else _parts())
    picks = Picks() if tracing is not None and since is not None else None
    whole, drawn, fresh = _counted(everything, mark, since, picks)
    names: dict[type, str] = {}
    types: dict[str, list[int]] = {}
    handles: set[str] = set()
    sampled: dict[str, list[float]] = {}
    weight = everything.sample.weight if everything.sample else 1.0
    sizes = {kind: whole.sizes[kind] + weight * drawn.sizes[kind] for kind in whole.counts | drawn.counts}
    for kind, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if is_ours(module_of(kind)) or (everything.too_many_numbers and kind in NUMBERS):
            continue
        name = names[kind] = full_name(kind)
        if name not in types and len(types) >= _MAX_TYPES:
            name = _OTHER
        elif has_own_memory(kind):
            handles.add(name)
        row = types.setdefault(name, [0, 0])
        row[0] += round(whole.counts[kind] + weight * drawn.counts[kind])
        row[1] += round(size)
        if everything.sample:
            of_it = (drawn.counts[kind], drawn.squares[kind], fresh.counts[kind], fresh.squares[kind])
            sampled[name] = [before + more for before, more in zip(sampled.get(name, [0] * 4), of_it, strict=True)]
    if mark is not None:
        mark.types = types
    seconds, now = time.monotonic() - began, time.time()
    found = {
        "types": types,
        # Of these, whose instances may have memory in C beside their size.
        "handles": sorted(handles),
        "objects": sum(count for count, _size in types.values()),
        "seconds": seconds,
        "time": now,
        "partial": everything.left_out,
        "blocks": small,
        "sample": {"share": everything.sample.share, "types": sampled} if everything.sample else None,
        # Whether numbers were counted: a census with and one without numbers cannot be subtracted.
        "numbers": not everything.too_many_numbers,
        "not_covered": [
            *filter(None, [everything.left_out, everything.too_many_numbers, everything.unhashable]),
            *NOT_COVERED,
        ],
    }
    if picks is not None and since is not None and tracing is not None:
        wanted = grew_most(since.types, types, handles)
        found["paths"] = _paths(picks.taken(names, wanted, tracing.samples), tracing, everything, since)
    return found


def _counted(
    everything: Everything, mark: FirstLook | None, since: FirstLook | None, picks: Picks | None
) -> tuple[_Tally, _Tally, _Tally]:
    """(the objects that stand for themselves, those that stand for several, those of these that are new)."""
    whole, drawn, fresh = _Tally(), _Tally(), _Tally()
    attributes = Attributes()
    if mark is not None:
        mark.parts = everything.parts
    for things, weight in everything:
        of_each = list(sizes_of(things))
        if mark is not None:
            mark.mark(things)
            mark.note_sizes(things, of_each)
            mark.note_lists(things)
        attributes.look(things)
        (whole if weight == 1.0 else drawn).add(things, of_each)
        if since is not None and (weight > 1.0 or picks is not None):
            new = since.new(things)
            of_new = list(sizes_of(new))
            if weight > 1.0:
                fresh.add(new, of_new)
            if picks is not None:
                picks.add(zip(new, of_new, strict=True), weight)
                picks.add(_grown(things, new, since), weight)
    each = attributes.bytes_each()
    for tally in (whole, drawn, fresh):
        tally.add_to_each(each)
    return whole, drawn, fresh


def _parts() -> int:
    return parts_for(len(gc.get_objects()), sys.getallocatedblocks())


class _Tally:
    """Of each class the number of its instances, their bytes, and the sum of the squares of these."""

    def __init__(self) -> None:
        self.counts: Counter[type] = Counter()
        self.sizes: Counter[type] = Counter()
        self.squares: Counter[type] = Counter()

    def add(self, things: list[Any], of_each: list[int]) -> None:
        self.counts.update(map(type, things))
        for kind, size in zip(map(type, things), of_each, strict=True):
            self.sizes[kind] += size
            self.squares[kind] += size * size

    def add_to_each(self, more: dict[type, float]) -> None:
        """Instances of a class take so many bytes more than they were added with."""
        for kind, each in more.items():
            count, size = self.counts[kind], self.sizes[kind]
            self.squares[kind] += round(2 * each * size + count * each * each)
            self.sizes[kind] += round(count * each)


def explain(
    types: list[str],
    samples: int,
    until: float = math.inf,
    *,
    first: FirstLook | None = None,
    threads: Sequence[ThreadFrame] = (),
    ledgers: Iterable[StreamLedger] = (),
) -> dict[str, Any]:
    """Why objects of these types are alive: `samples` of each, traced from a root.

    first    marks of a first census: samples are drawn among the objects that are new since then, and the large ones that have
             grown, each standing for the same number of bytes. None: they are drawn among the younger half
    threads  frames of other threads that `threads.frames_with_locals` returned before the fork
    ledgers  those of the service; open streams are found without one as well, where the server is known
    until    deadline, monotonic seconds

    To be called in a forked child. Returns `{"paths": {type: [{"path", "samples", "root"}, ...]}}`, the commonest path first.
    `root` is the kind of the path's root (module, class, task, thread, frame), "cycle" for garbage that waits for the
    collector, "lost" for an object that C code holds, or "unknown". Objects that nothing but an open stream keeps alive have
    the root "stream", and `streams`: the ids of those that the samples are of.
    """
    everything = Everything(until, first.parts if first is not None else _parts())
    tracing = Tracing(samples, threads, ledgers)
    return {"paths": _paths(_samples(types, samples, everything, first), tracing, everything, first)}


def _samples(types: list[str], samples: int, everything: Everything, first: FirstLook | None) -> dict[str, list[Any]]:
    by_type: dict[str, list[tuple[Any, float]]] = {name: [] for name in types}
    names: dict[type, str] = {}
    for things, weight in everything:
        met = kinds(things)
        for kind in met:
            if kind not in names:
                names[kind] = full_name(kind)
        wanted = frozenset(kind for kind in met if names[kind] in by_type)
        for thing, size in _weighed(of_kinds(things, wanted), first):
            by_type[names[type(thing)]].append((thing, weight * size))
    # This function's own lists and dictionaries are among all tracked objects, and must not become samples.
    ours = {id(by_type), id(names), *map(id, by_type.values())}
    others = ([pair for pair in pairs if id(pair[0]) not in ours] for pairs in by_type.values())
    # Without a first look the later half of a type's objects: the collector's lists have older ones first, except for the very
    # youngest, and growing types have young objects.
    later = (pairs if first is not None else pairs[len(pairs) // 2 :] for pairs in others)
    return {name: spread(pairs, samples) for name, pairs in zip(types, later, strict=True)}


def _paths(
    sampled: dict[str, list[Any]], tracing: Tracing, everything: Everything, first: FirstLook | None
) -> dict[str, Any]:
    try:
        if everything.left_out is not None:
            raise LateError(0)
        wanted = [thing for things in sampled.values() for thing in things]
        ways = Ways(wanted, tracing.threads, everything.until, open_streams(list(tracing.ledgers)), first)
        ways.working.update([id(wanted), *map(id, sampled.values())])
    except LateError as late:
        unknown = f"(not known: the search was ended at its deadline, when {late})"
        return {
            name: [{"path": unknown, "samples": len(things), "root": ROOT_UNKNOWN}] for name, things in sampled.items()
        }
    del wanted
    return {name: _commonest_ways(things, ways) for name, things in sampled.items()}


def _weighed(things: list[Any], first: FirstLook | None) -> Iterator[tuple[Any, int]]:
    """Each of these objects with its size; after a first census, new ones with their sizes, and old ones with their growth."""
    if first is None:
        yield from zip(things, sizes_of(things), strict=True)
        return
    new = first.new(things)
    yield from zip(new, sizes_of(new), strict=True)
    yield from _grown(things, new, first)


def _grown(things: list[Any], new: list[Any], first: FirstLook) -> list[tuple[Any, int]]:
    """Of `things` those that are not `new` and have grown, with how much they have."""
    growing = frozenset(kinds(things)) - _FIXED
    if not growing or len(new) == len(things):
        return []
    fresh = set(map(id, new))
    old = [thing for thing in of_kinds(things, growing) if id(thing) not in fresh]
    return first.grown(old, sizes_of(old))


def _commonest_ways(things: list[Any], ways: Ways) -> list[dict[str, Any]]:
    """Paths that differ only in the lengths of containers are one; its example is the first of them."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    streams: dict[tuple[str, str], dict[int | str | None, None]] = {}
    # A large object may be several of the samples, and is traced once.
    seen: dict[int, Held] = {}
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
            seen[key] = holder_of(things[place : place + 1], ways)
        held = seen[key]
        if held.root != OURS:
            holder = held.root, held.path
            counts[holder] += 1
            examples.setdefault(holder, held.example)
            streams.setdefault(holder, {})[held.stream] = None
    return [
        {"path": examples[holder], "samples": count, "root": holder[0]}
        | ({"streams": list(streams[holder])} if holder[0] == STREAM else {})
        for holder, count in counts.most_common()
    ]
