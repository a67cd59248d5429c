"""Every asyncio task, grouped by where it waits: what a goroutine profile is for Go.

Tasks with the same await stack, state, loop, name pattern, creation site and waiters are one group. A task that no other task
awaits, nor `run_until_complete`, is shown as not awaited: it may be a leak, or intended (a server's connections are kept in a
set and never awaited); its done callbacks are named, as a hint to what else depends on it.
"""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ...ledger import StreamLedger
from ...loops.asyncio_tasks import alive_tasks, current_tasks, shows_ended, why_unseen
from ...loops.coroutines import coroutine_of
from ...loops.futures import callbacks_of, children_of, created_at, is_task, waited_for
from ...redaction import hidden_shapes, names_shown
from ..graph import LateError
from .awaits import FrameKey, frame_key, frames_of_task
from .leaked import MOST_OBJECTS, leaked_tasks
from .streams import openers, record_of
from .threads import ThreadFrame
from .waiters import PROGRAM, callback_name, waiters

__all__ = ["NOT_COVERED", "name_pattern", "read"]

NOT_COVERED = (
    "what a thread of a C library does: only threads that run Python have a stack",
    "where a running task has come to: its stack is known while it waits",
    "the age of a task outside of a stream, and where it was created unless asyncio's debug mode is on",
)

# A task's name may contain an id or a user's data: digits and hexadecimal runs become *, long names are cut, and beyond this
# many patterns all others are one.
_MAX_PATTERNS = 50
_MAX_NAME = 60
_MAX_LOOKED_AT = 500
_VARYING = re.compile(r"(?:[0-9a-fA-F]{8,}|\d+)(?:-[0-9a-fA-F]{4,})*")
_UUID = re.compile(r"[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})+")
_OTHER = "(other)"
_MAX_CREATED = 8
_ENDED = "tasks that are done and still held by someone: asyncio of this Python tells only those that are not done"

Threads = list[tuple[str, list[FrameKey]]]


@dataclass(frozen=True)
class _Key:
    """The properties that all tasks of a group share. `stack` is leaf first."""

    stack: tuple[FrameKey, ...]
    state: str
    loop: int
    awaited_by: tuple[str, ...]
    name: str
    waits_for: str
    created: tuple[FrameKey, ...] | None
    callbacks: tuple[str, ...]
    leaked: bool | None = None

    @property
    def orphan(self) -> bool:
        return not self.awaited_by and self.state != "done"

    @property
    def labels(self) -> dict[str, str]:
        return {"state": self.state, "loop": str(self.loop), "orphan": "yes" if self.orphan else "no"} | (
            {} if self.leaked is None else {"leaked": "yes" if self.leaked else "no"}
        )


@dataclass
class _Group:
    count: int = 0
    routes: dict[str, int] = field(default_factory=dict)
    oldest: float | None = None

    def add(self, record: Any, now: float) -> None:
        self.count += 1
        if record is not None:
            self.routes[record.route] = self.routes.get(record.route, 0) + 1
            age = now - record.opened_at
            self.oldest = age if self.oldest is None else max(self.oldest, age)


def name_pattern(name: str) -> str:
    """A task's name with numbers and parts that look like data replaced: `Task-17` -> `Task-*`."""
    if not names_shown():
        return "*"
    return _VARYING.sub("*", hidden_shapes(_UUID.sub("*", name[:_MAX_LOOKED_AT])))[:_MAX_NAME]


def read(
    ledgers: Iterable[StreamLedger],
    threads: Threads,
    thread_frames: Sequence[ThreadFrame] | None = None,
    until: float = math.inf,
) -> dict[str, Any]:
    """Profile JSON (tasks/count) with `groups` and `threads` beside it. To be called in a forked child.

    threads        result of `threads.read()` before the fork
    thread_frames  result of `threads.frames_with_locals()` then, with which leaked tasks are searched for; None: no search
    until          deadline of that search, monotonic seconds
    """
    leaked, why_not = _leaked(thread_frames, until)
    groups, states = _grouped(list(ledgers), leaked)
    unseen = why_unseen()
    not_covered = [] if unseen is None else [f"asyncio tasks: {unseen}"]
    not_covered += [f"which tasks nothing can wake: {why_not}"] if why_not else []
    not_covered += list(NOT_COVERED) if shows_ended() else [*NOT_COVERED, _ENDED]
    largest_first = sorted(groups.items(), key=lambda item: (-item[1].count, item[0].stack))
    index: dict[FrameKey, int] = {}
    samples: list[Any] = [
        [[index.setdefault(frame, len(index)) for frame in key.stack], [group.count], key.labels]
        for key, group in largest_first
    ]
    for _name, frames in threads:
        stack = [index.setdefault(frame, len(index)) for frame in reversed(frames)]
        samples.append([stack, [1], {"state": "thread"}])
    return {
        "schema": "highwater.profile/1",
        "kind": "tasks",
        "sample_types": [["tasks", "count"]],
        "frames": [list(frame) for frame in index],
        "samples": samples,
        "time": time.time(),
        "duration": 0,
        "not_covered": not_covered,
        "meta": {
            "tasks": sum(states.values()) if states or unseen is None else None,
            "states": states,
            "threads": len(threads),
            "unknown": unseen,
            "leaked": None if leaked is None else len(leaked),
            "leaked_unknown": why_not,
        },
        "groups": [_to_json(key, group) for key, group in largest_first],
        "threads": [
            {"name": name_pattern(name), "stack": [list(frame) for frame in frames]} for name, frames in threads
        ],
    }


def _leaked(thread_frames: Sequence[ThreadFrame] | None, until: float) -> tuple[set[int] | None, str]:
    """The ids of tasks that nothing can wake and "", or None and why they are not known."""
    if thread_frames is None:
        return None, "it was not asked for, or read without a fork"
    count = sum(map(len, (gc.get_objects(generation) for generation in range(3))))
    if count > MOST_OBJECTS:
        return None, f"there are {count:,} objects, and a walk over more than {MOST_OBJECTS:,} takes too much memory"
    try:
        return leaked_tasks(thread_frames, until), ""
    except LateError as late:
        return None, f"the walk was ended at its deadline, when {late}"


def _grouped(ledgers: list[StreamLedger], leaked: set[int] | None) -> tuple[dict[_Key, _Group], dict[str, int]]:
    running = {id(task) for task in current_tasks()}
    loops: dict[int, int] = {}
    patterns: set[str] = set()
    groups: dict[_Key, _Group] = {}
    states: dict[str, int] = {}
    now = time.monotonic()
    opened = openers(ledgers)
    for task in alive_tasks():
        state = "done" if task.done() else "running" if id(task) in running else "pending"
        states[state] = states.get(state, 0) + 1
        pattern = name_pattern(task.get_name())
        if pattern not in patterns and len(patterns) >= _MAX_PATTERNS:
            pattern = _OTHER
        patterns.add(pattern)
        key = _Key(
            stack=tuple(reversed(frames_of_task(task))) or _ended(task),
            state=state,
            loop=loops.setdefault(id(task.get_loop()), len(loops)),
            awaited_by=tuple(sorted({_waiter_name(waiter) for waiter in waiters(task)})),
            name=pattern,
            waits_for=_waits_for(task),
            created=_created(task),
            callbacks=tuple(sorted({callback_name(callback) for callback in callbacks_of(task)})),
            leaked=None if leaked is None else id(task) in leaked,
        )
        groups.setdefault(key, _Group()).add(
            record_of(task, ledgers) or next(iter(opened.get(id(task), ())), None), now
        )
    return groups, states


def _ended(task: Any) -> tuple[FrameKey, ...]:
    """The stack for a task whose coroutine has ended and has no frame: the line where the coroutine is defined."""
    code = getattr(coroutine_of(task), "cr_code", None)
    return ((code.co_qualname, code.co_filename, code.co_firstlineno),) if code else ()


def _waiter_name(waiter: Any) -> str:
    if waiter == PROGRAM:
        return PROGRAM
    key = frame_key(coroutine_of(waiter))
    return f"task {name_pattern(waiter.get_name())}" + (f" in {key[0]}" if key else "")


def _waits_for(task: Any) -> str:
    """The type of the object at the end of the await chain: a plain future, another task, a gather future."""
    waiter = waited_for(task)
    if waiter is None:
        return ""
    children = children_of(waiter)
    if children is not None:
        return f"{len(children)} gathered"
    if is_task(waiter):
        return "a task"
    return "a future"


def _created(task: Any) -> tuple[FrameKey, ...] | None:
    """The stack where the task was created, innermost frame first; asyncio records it in debug mode only."""
    traceback = created_at(task)
    if not traceback:
        return None
    frames = [(entry.name, entry.filename, entry.lineno or 0) for entry in reversed(traceback)]
    # The innermost frames are asyncio's own (ensure_future, gather).
    while len(frames) > 1 and PurePath(frames[0][1]).parent.name == "asyncio":
        del frames[0]
    return tuple(frames[:_MAX_CREATED])


def _to_json(key: _Key, group: _Group) -> dict[str, Any]:
    return {
        "count": group.count,
        "state": key.state,
        "loop": key.loop,
        "name": key.name,
        "stack": [list(frame) for frame in key.stack],
        "orphan": key.orphan,
        "leaked": key.leaked,
        "awaited_by": list(key.awaited_by),
        "waits_for": key.waits_for,
        "created": [list(frame) for frame in key.created] if key.created else None,
        "callbacks": list(key.callbacks),
        "routes": group.routes,
        "oldest_seconds": group.oldest,
    }
