"""A census of live objects by type, and why objects of a type are alive.

A census counts everything that the garbage collector tracks, and what that holds directly and the collector does not track:
bytes, bytearrays, strings, and the dictionaries and tuples made of such. Each object counts once, with its own
size. Subtracting two censuses shows which types grow; samples of those are then traced back to a root.

The collector is not run first: in a forked child, finalizers would act on the outside world for a process that is not theirs.
Garbage in cycles that the service has not collected yet is therefore counted, and shown as reached from nowhere.
"""

from __future__ import annotations

import bisect
import gc
import itertools
import time
from collections import Counter
from typing import Any

from ..loops import alive_tasks
from .graph import ATOMS, module_of, roots, search, size_of
from .paths import describe, way_to

__all__ = ["NOT_COVERED", "UNREACHED", "census", "explain"]

NOT_COVERED = (
    "numbers, and memory that C extensions keep outside of Python objects",
    "contents that an object does not report as its size: an instance's attributes are counted as its dictionary or not at all",
    "garbage in cycles that is not collected yet counts as alive",
)
UNREACHED = (
    "(reached from no module, task or frame: kept by C code or another thread, or garbage that waits for the collector)"
)

# Types beyond this many are summed up as one: a program that makes classes as it runs has no end of them.
_MAX_TYPES = 2_000
_OTHER = "(other types)"

_PLAIN = frozenset({dict, tuple})


def census() -> dict[str, Any]:
    """`{"types": {name: [count, bytes]}, "objects", "seconds", "time"}`. To be called in a forked child."""
    began = time.monotonic()
    counts: Counter[type] = Counter()
    sizes: Counter[type] = Counter()
    for thing in _everything():
        kind = type(thing)
        counts[kind] += 1
        sizes[kind] += size_of(thing)
    types: dict[str, list[int]] = {}
    for kind, size in sizes.most_common():
        name = _full_name(kind)
        if name not in types and len(types) >= _MAX_TYPES:
            name = _OTHER
        row = types.setdefault(name, [0, 0])
        row[0] += counts[kind]
        row[1] += size
    return {
        "types": types,
        "objects": sum(counts.values()),
        "seconds": time.monotonic() - began,
        "time": time.time(),
        "not_covered": list(NOT_COVERED),
    }


def explain(types: list[str], samples: int) -> dict[str, Any]:
    """Why objects of these types are alive: `samples` of each, the young and the large before others, traced from a root.

    To be called in a forked child. Returns `{"paths": {type: [{"path", "samples"}, ...]}}`, the commonest way first.
    """
    wanted = set(types)
    found: dict[str, list[Any]] = {name: [] for name in types}
    names: dict[type, str] = {}
    for thing in _everything():
        kind = type(thing)
        name = names.get(kind)
        if name is None:
            name = names[kind] = _full_name(kind)
        if name in wanted:
            found[name].append(thing)
    chosen = {name: _spread(things, samples) for name, things in found.items()}
    # Tasks first: of two ways of one length, the one through the task that works with an object tells more.
    start = [*(task for task in alive_tasks() if not task.done()), *roots()]
    parents = search(start, [thing for things in chosen.values() for thing in things])
    return {"paths": {name: _commonest_ways(things, parents) for name, things in chosen.items()}}


def _commonest_ways(things: list[Any], parents: dict[int, Any]) -> list[dict[str, Any]]:
    """Ways that differ only in the lengths of containers are one; its example is the first that was met."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for thing in things:
        way = way_to(thing, parents)
        key = describe(way, lengths=False) if way else UNREACHED
        counts[key] += 1
        if key not in examples:
            examples[key] = describe(way) if way else UNREACHED
    return [{"path": examples[key], "samples": count} for key, count in counts.most_common()]


def _everything() -> list[Any]:
    """Every object of the census, once."""
    tracked = gc.get_objects()
    # Filled while it is walked: what is appended below is looked through in its turn.
    untracked: list[Any] = []
    seen: set[int] = set()
    is_tracked, get_referents = gc.is_tracked, gc.get_referents

    def add(holder: Any) -> None:
        for thing in get_referents(holder):
            kind = type(thing)
            if (kind in ATOMS or (kind in _PLAIN and not is_tracked(thing))) and id(thing) not in seen:
                seen.add(id(thing))
                untracked.append(thing)

    for holder in tracked:
        add(holder)
    for holder in untracked:
        if type(holder) in _PLAIN:
            add(holder)
    tracked += untracked
    return tracked


def _spread(things: list[Any], samples: int) -> list[Any]:
    """`samples` of the later half, each standing for the same number of bytes: a large object may be taken repeatedly.

    The collector's lists have older objects first, except for the very youngest; what grows is young.
    """
    later = things[len(things) // 2 :]
    ends = list(itertools.accumulate(size_of(thing) for thing in later))
    if not ends:
        return []
    return [later[bisect.bisect_right(ends, (place + 0.5) * ends[-1] / samples)] for place in range(samples)]


def _full_name(kind: type) -> str:
    module = module_of(kind)
    return (kind.__qualname__ if module in ("", "builtins") else f"{module}.{kind.__qualname__}")[:120]
