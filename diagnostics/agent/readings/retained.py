"""The objects that each open stream alone keeps alive: the bytes that would be freed if the stream ended.

The law of this file: an object is charged to a stream if it can be reached from the stream's roots (its tasks, their
contexts, its connection), from no other stream, and not from the rest of the program without passing through those roots.
Objects that two streams reach are charged to neither and reported apart.

    1. mark all that the rest of the program reaches: modules, classes, other tasks, running frames   -> the program's
       A task outside of all streams that shares something with one stream alone, which no module or class reaches, works for
       that stream (it fills the queue that the response's body is read from) and is one of its roots
    2. from each stream's roots, breadth first over what is not marked                                -> this stream's
    3. each object that a second stream reaches, and all objects below it                             -> between streams

Every object is visited once in each step, so the time is linear. Step 1 does not pass through the event loop's handles,
transports and protocols: the loop refers to every connection and owns none.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from ...errors import TargetError
from ..ledger import StreamLedger
from ..loops.asyncio_tasks import alive_tasks
from ..loops.frames import locals_of
from ..loops.futures import declares
from .graph import (
    LateError,
    is_loops_own,
    is_program,
    is_shared_constant,
    program_roots,
    reached,
    referents,
    running_locals,
    size_of,
    tracked,
)
from .holdings import Holding, Holdings, Node, holdings_of
from .running.awaits import chain, own_frame
from .running.streams import OpenStream, open_streams, parts_of, why_unknown
from .walk.steps import of_kinds

__all__ = ["NOT_COVERED", "read"]

NOT_COVERED = (
    "what a registry of the program holds as well (a dictionary of all subscribers): ending the stream alone would not free it",
    "memory of C libraries, of sockets in the kernel, and the attribute tables of instances",
    "what only another thread's locals or C code hold beside the stream: it is charged to the stream",
)

_SHARED_STEPS = 2_000_000


def read(ledgers: Iterable[StreamLedger], until: float = math.inf) -> dict[str, Any]:
    """Profile JSON (inuse_space, inuse_objects), `streams` with each one's sums, and `unknown`: why no stream can be found
    ("" where streams can). To be called in a forked child.

    until   deadline, monotonic seconds
    Raises TargetError past the deadline.
    """
    began = time.monotonic()
    all_ledgers = list(ledgers)
    streams = open_streams(all_ledgers)
    things, _ = tracked()
    loops_own = frozenset(kind for kind in set(map(type, things)) if is_loops_own(kind))
    loops = set(map(id, of_kinds(things, loops_own)))
    del things
    try:
        everybodys = _everybodys(streams, loops, until)
    except LateError as late:
        raise TargetError(
            f"what each stream alone keeps alive is not known: the reading was ended after {time.monotonic() - began:.0f} s, "
            f"before the rest of the program was walked through ({late})",
            remedy="take it again when the cores are free, or kind objects, which tells what it has counted until then",
            code="reading_late",
        ) from late
    walk = _StreamWalk(everybodys, parts_of(streams))
    for number, stream in enumerate(streams):
        walk.charge(number, stream.roots)
    walk.settle()
    by_stream = [(stream, holdings_of(walk.nodes[number], walk.between)) for number, stream in enumerate(streams)]
    return {
        **_answer(by_stream, walk, time.monotonic() - began),
        "unknown": "" if streams else why_unknown(all_ledgers),
    }


def _everybodys(streams: list[OpenStream], loops: set[int], until: float) -> set[int]:
    """Step 1; tasks that work for one stream become its roots. `loops`: ids of handles, transports, protocols and loops."""
    cut = parts_of(streams)
    others = {id(task): task for task in alive_tasks() if id(task) not in cut and not task.done()}
    barrier = cut.keys() | loops | others.keys()
    start = (root for root in (*program_roots(), *running_locals()) if id(root) not in barrier)
    reachable = reached(start, barrier, until=until)
    for key, task in list(others.items()):
        owners = _owners(task, streams, reachable, barrier)
        if len(owners) == 1:
            (stream,) = owners
            stream.roots.append(others.pop(key))
            stream.frames.extend(link for link in chain(task.get_coro()) if own_frame(link) is not None)
    barrier = parts_of(streams).keys() | loops
    return reached(others.values(), barrier, until=until, walked=reachable)


def _owners(task: Any, streams: list[OpenStream], everybodys: set[int], barrier: AbstractSet[int]) -> list[OpenStream]:
    """The streams that share an object with this task which the rest of the program does not reach."""
    near = {key for key in _near(chain(task.get_coro())) if key not in everybodys and key not in barrier}
    return [stream for stream in streams if near and not near.isdisjoint(_near(stream.frames))]


def _near(frames: Iterable[Any]) -> set[int]:
    """Ids of the objects in the local and closure variables of these coroutines and generators."""
    ids: set[int] = set()
    for link in frames:
        frame = own_frame(link)
        if frame is not None:
            values = locals_of(frame).values()
            ids.update(id(each) for each in values if gc.is_tracked(each) and not is_program(each))
    return ids


class _StreamWalk:
    """Steps 2 and 3: which stream owns which objects."""

    def __init__(self, everybodys: set[int], cut: dict[int, int]) -> None:
        self._everybodys = everybodys
        self._cut = cut
        self._owner: dict[int, int] = {}
        # By stream: the objects it reached that an earlier stream had reached before.
        self._met: list[list[Any]] = []
        self.nodes: list[list[Node]] = []
        self.between: set[int] = set()
        self.between_bytes = 0
        self._between_sizes: dict[int, int] = {}

    def charge(self, number: int, stream_roots: list[Any]) -> None:
        """Step 2 for the stream of this number."""
        nodes: list[Node] = []
        met: list[Any] = []
        owner, everybodys, cut = self._owner, self._everybodys, self._cut
        for root in stream_roots:
            owner[id(root)] = number
            nodes.append(Node(root, -1, size_of(root)))
        position = 0
        while position < len(nodes):
            for thing in referents(nodes[position].thing):
                key = id(thing)
                if key in everybodys:
                    continue
                owned_by = owner.get(key)
                if owned_by is None:
                    if cut.get(key, number) == number and not is_shared_constant(thing) and not _is_loop(thing):
                        owner[key] = number
                        nodes.append(Node(thing, position, _weight(thing)))
                elif owned_by != number and key not in cut:
                    met.append(thing)
            position += 1
        self.nodes.append(nodes)
        self._met.append(met)

    def settle(self) -> None:
        """Step 3: move objects that several streams reach, and all below them, to `between`."""
        pending = [thing for met in self._met for thing in met]
        while pending:
            thing = pending.pop()
            key = id(thing)
            if key in self.between or key not in self._owner or key in self._cut:
                continue
            self.between.add(key)
            self._between_sizes[key] = _weight(thing)
            pending.extend(referents(thing))
        self.between_bytes = sum(self._between_sizes.values())

    def shared_bytes(self, number: int) -> int | None:
        """Bytes between streams that this one reaches; None where there are too many objects to follow."""
        entries = list(self._met[number])
        entries.extend(node.thing for node in self.nodes[number] if id(node.thing) in self.between)
        seen: set[int] = set()
        total, pending = 0, entries
        while pending:
            thing = pending.pop()
            key = id(thing)
            if key in seen or key not in self.between:
                continue
            if len(seen) > _SHARED_STEPS // max(1, len(self.nodes)):
                return None
            seen.add(key)
            total += self._between_sizes[key]
            pending.extend(referents(thing))
        return total


def _is_loop(thing: Any) -> bool:
    return is_loops_own(type(thing)) and declares(type(thing), "call_soon_threadsafe")


def _weight(thing: Any) -> int:
    return 0 if is_program(thing) else size_of(thing)


def _answer(by_stream: list[tuple[OpenStream, Holdings]], walk: _StreamWalk, seconds: float) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    samples: dict[Any, list[int]] = {}
    for number, (stream, holdings) in enumerate(by_stream):
        rows.append(
            {
                "id": stream.id,
                "route": stream.route,
                "state": stream.state,
                "age_seconds": stream.age_seconds,
                "retained_bytes": holdings.total_bytes,
                "retained_objects": holdings.total_count,
                "shared_bytes": walk.shared_bytes(number),
                "containers": [_container(holding) for holding in holdings.largest],
            }
        )
        labels = (("route", stream.route), ("state", stream.state))
        for stack, (held, count) in holdings.by_stack.items():
            sums = samples.setdefault((stack, labels), [0, 0])
            sums[0] += held
            sums[1] += count
    rows.sort(key=lambda row: -row["retained_bytes"])
    index: dict[Any, int] = {}
    return {
        "schema": "highwater.profile/1",
        "kind": "retained",
        "sample_types": [["inuse_space", "bytes"], ["inuse_objects", "count"]],
        "samples": [
            [[index.setdefault(frame, len(index)) for frame in stack], values, dict(labels)]
            for (stack, labels), values in samples.items()
        ],
        "frames": [list(frame) for frame in index],
        "time": time.time(),
        "duration": 0,
        "not_covered": list(NOT_COVERED),
        "meta": {"streams": len(rows), "shared_between_bytes": walk.between_bytes, "walk_seconds": round(seconds, 3)},
        "streams": rows,
    }


def _container(holding: Holding) -> dict[str, Any]:
    return {"path": holding.path, "type": holding.type, "bytes": holding.bytes, "length": holding.length}
