"""What is done once, when somebody asks for it: tracer windows, walks over all objects, a collection."""

from __future__ import annotations

import gc
import time

from ...errors import TargetError
from ..loops.asyncio_tasks import why_unseen
from ..readings.allocation import allocators, tracemalloc
from .forked import Forked
from .readings import reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..state import State
    from .forked import Result

__all__ = ["CAPTURES"]

# A snapshot of four million blocks takes about a minute and a gigabyte.
_SNAPSHOT_SECONDS = 120.0
_SNAPSHOT_REMEDY = "take a shorter window or fewer frames"
# A task's stack takes about 20 microseconds; walking a million objects takes 1 to 3 seconds of CPU time, and far more
# wall-clock time on busy cores. A walk ends by itself at its deadline and returns a partial result; later it is killed.
_TASKS_SECONDS, _LEAKS_SECONDS = 30.0, 15.0
_WALK_SECONDS, _WALK_KILLED_SECONDS = 120.0, 180.0
_WALK_REMEDY = "take it where memory and cores are free, or take kind tasks, or tracemalloc for what grows"


def begin_tracemalloc(state: State, seconds: float, frames: int = 5) -> Result:
    state.begin_window()
    _load(state)
    return state.windows.begin_tracemalloc(seconds=seconds, frames=frames)


def _load(state: State) -> None:
    """Import and use what the agent needs while a tracer runs: else its allocations would be counted as the service's."""
    import mmap  # noqa: F401

    from .. import forked, redaction  # noqa: F401
    from ..readings.allocation import by_ctypes, heap  # noqa: F401

    _ = by_ctypes.libc().prctl
    reading(state)


def finish_tracemalloc(state: State, room_bytes: int | None = None) -> Result:
    import mmap

    from ..readings.allocation import heap

    seconds = state.windows.age("tracemalloc")
    window = state.windows.current
    # Ending a window writes to all pages of its traces, and each page that a child still shares is copied first: a second
    # for a million blocks instead of 30 ms. So the child sets a byte of shared memory once it has its snapshot and has
    # freed its copy. A pipe would not do: the child closes all descriptors but that of its answer.
    let_go = mmap.mmap(-1, 1)

    def end() -> None:
        if state.windows.current is window:  # not a later one: this one may have been cancelled
            heap.make_own()
            state.end_window()

    return Forked(
        work=lambda: tracemalloc.snapshot(seconds, lambda: let_go.write_byte(1)),
        after=end,
        ready=lambda: let_go[0] == 1,
        seconds=_SNAPSHOT_SECONDS,
        room_bytes=room_bytes,
        remedy=_SNAPSHOT_REMEDY,
    )


def begin_memray(
    state: State,
    path: str,
    seconds: float,
    aggregated: bool = True,
    python_allocators: bool = True,
    native: bool = False,
) -> Result:
    state.begin_window()
    _load(state)
    return state.windows.begin_memray(
        path=path, seconds=seconds, aggregated=aggregated, python_allocators=python_allocators, native=native
    )


def finish_memray(state: State) -> Result:
    seconds = state.windows.age("memray")
    return {"seconds": seconds, "ending_seconds": state.end_window()}


def end_window(state: State) -> Result:
    """Close the open window, if any, and discard its traces."""
    return {"kind": state.window_kind, "ending_seconds": state.end_window()}


def collect(state: State) -> Result:
    """A full garbage collection, on a user's request: it stalls all threads, 50-100 ms per million objects."""
    began = time.monotonic()
    return {"unreachable": gc.collect(), "seconds": time.monotonic() - began}


def tasks(state: State, fork: bool = True, leaks: bool = False, room_bytes: int | None = None) -> Result:
    """Every task and thread by the stack where it waits. Without a fork: about 20 microseconds a task, with the GIL held.

    leaks   look for tasks that nothing can wake, too, in a walk over all objects; only with a fork
    """
    from ..readings.running import tasks, threads  # they import asyncio: only at the first request

    # A forked child has one thread: the others' stacks are taken here.
    stacks = threads.read()
    if not fork:
        return {**tasks.read(state.ledgers, stacks), "in_process": True}
    remedy = 'take it without a fork ("fork": false), which holds the GIL for about 20 microseconds a task'
    thread_frames = threads.frames_with_locals() if leaks else None
    return Forked(
        lambda: tasks.read(state.ledgers, stacks, thread_frames, time.monotonic() + _LEAKS_SECONDS),
        seconds=_TASKS_SECONDS, room_bytes=room_bytes, remedy=remedy,
    )  # fmt: skip


def census(
    state: State, first: bool = False, again: bool = False, samples: int = 0, room_bytes: int | None = None
) -> Result:
    """Live objects by type, and more:

    in_use   bytes in use when it began, and `at` that moment, monotonic seconds
    freed    bytes that other threads' data had, which the fork has freed in the child before anything could be read there
             (thread-locals, context variables). Both are None where in-use bytes are not known
    paths    with `again` and `samples`: as `explain` has them, of the types that grew most

    first        mark all objects, so that a later census and `explain` can tell which are new
    again        it is to be compared with the last one with `first`
    samples      so many of each type that grew are traced, and the marks are forgotten
    room_bytes   here and below: bytes of memory that are free, as far as the monitor knows
    """
    from ..readings import objects
    from ..readings.running import threads

    marks = None
    if first:
        from ..readings.newness import FirstLook

        marks = FirstLook()
        state.remember(marks)
    since = state.first_look if again else None
    tracing = None
    if since is not None and samples:
        tracing = objects.Tracing(samples, threads.frames_with_locals(), list(state.ledgers))
    in_use, at = allocators.read().in_use, time.monotonic()
    work = _walk(
        lambda until: {
            "freed": _freed(in_use), "in_use": in_use, "at": at, **objects.census(until, marks, since, tracing),
        },
        room_bytes,
    )  # fmt: skip
    if tracing is not None:
        work.after = lambda: state.remember(None)
    return work


def _freed(before: int | None) -> int | None:
    """In the child, first of all: how much less is in use than before the fork."""
    now = allocators.read().in_use
    return None if before is None or now is None else max(0, before - now)


def explain(
    state: State, types: list[str], samples: int = 12, new: bool = False, room_bytes: int | None = None
) -> Result:
    """Why objects of these types are alive. `new`: only objects made since the last census with `first`."""
    from ..readings import objects
    from ..readings.running import threads

    thread_frames, first = threads.frames_with_locals(), state.first_look if new else None
    ledgers = list(state.ledgers)
    work = _walk(
        lambda until: objects.explain(types, samples, until, first=first, threads=thread_frames, ledgers=ledgers),
        room_bytes,
    )
    work.after = lambda: state.remember(None)
    return work


def retained(state: State, room_bytes: int | None = None) -> Result:
    """The memory that each open stream alone keeps alive. Raises TargetError where the serving tasks cannot be seen."""
    unseen = why_unseen()
    if unseen is not None:
        raise TargetError(
            f"what streams keep alive is unknown: {unseen}",
            remedy="take a capture of kind objects: it shows what is alive, and not for whom",
            code="tasks_unseen",
        )
    from ..readings import retained

    return _walk(lambda until: retained.read(state.ledgers, until), room_bytes)


def _walk(work: Callable[[float], dict[str, Any]], room_bytes: int | None) -> Forked:
    """A forked walk; `work` takes its deadline (monotonic seconds), at which it must end by itself."""
    until = time.monotonic() + _WALK_SECONDS
    return Forked(lambda: work(until), seconds=_WALK_KILLED_SECONDS, room_bytes=room_bytes, remedy=_WALK_REMEDY)


CAPTURES: dict[str, Callable[..., Result]] = {
    "tracemalloc.begin": begin_tracemalloc,
    "tracemalloc.finish": finish_tracemalloc,
    "memray.begin": begin_memray,
    "memray.finish": finish_memray,
    "window.end": end_window,
    "gc.collect": collect,
    "tasks": tasks,
    "objects.census": census,
    "objects.explain": explain,
    "retained": retained,
}
