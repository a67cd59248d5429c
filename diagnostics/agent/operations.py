"""The operations that a request to the agent can name. Each takes the request's parameters and returns JSON.

An operation that returns a `Forked` is answered by a child process; all others must be quick, because the agent's one
thread shares the GIL with the service.
"""

from __future__ import annotations

import gc
import os
import sys
import time

from ..errors import BusyError, ProtocolError, TargetError, UsageError
from .loops.asyncio_tasks import why_unseen
from .readings.allocation import allocators, memray, tracemalloc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .ledger import StreamLedger
    from .servers.snapshot import ServerLook
    from .state import State

__all__ = ["OPERATIONS", "Forked", "perform"]

# A snapshot of four million blocks takes about a minute and a gigabyte.
_SNAPSHOT_SECONDS = 120.0
_SNAPSHOT_REMEDY = "take a shorter window or fewer frames"
# A task's stack takes about 20 microseconds; walking a million objects takes 1 to 3 seconds of CPU time, and far more
# wall-clock time on busy cores. A walk ends by itself at its deadline and returns a partial result; later it is killed.
_TASKS_SECONDS, _LEAKS_SECONDS = 30.0, 15.0
_WALK_SECONDS, _WALK_KILLED_SECONDS = 120.0, 180.0
_WALK_REMEDY = "take it where memory and cores are free, or take kind tasks, or tracemalloc for what grows"


class Forked:
    """An answer that a forked child makes. `work` runs in the child; `after` here, once `ready()`, or at the child's end."""

    __slots__ = ("after", "ready", "remedy", "room_bytes", "seconds", "work")

    def __init__(
        self,
        work: Callable[[], dict[str, Any]],
        *,
        seconds: float,
        room_bytes: int | None,
        remedy: str,
        after: Callable[[], object] = lambda: None,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.work = work
        self.seconds = seconds
        self.room_bytes = room_bytes
        self.remedy = remedy
        self.after = after
        self.ready = ready


if TYPE_CHECKING:
    Result = dict[str, Any] | Forked


def hello(state: State) -> Result:
    """Identifies the process: `pid` in its own PID namespace, `start_ticks` of /proc/self/stat, versions of its software."""
    return {
        "pid": os.getpid(),
        "start_ticks": _start_ticks(),
        "started": state.started,
        "python": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        **memray.about(),
        "attached": state.leave is not None,
        "window": state.windows.kind,
    }


def leave(state: State, force: bool = False) -> Result:
    """Unload an agent that was put into the running process. `force`: even while a window is open.

    Raises UsageError where the agent was started with the process, BusyError while a window is open.
    """
    if state.leave is None:
        raise UsageError(
            "this agent came with its process (diagnostics run, or instrument(app)) and goes with it",
            remedy="start the service without it",
            code="not_attached",
        )
    if state.windows.kind is not None and not force:
        raise BusyError(
            f"a {state.windows.kind} window is open in this process",
            remedy="wait for its capture to end or cancel it; --force ends it",
        )
    state.leaving = True
    return {"leaving": True}


def _start_ticks() -> int | None:
    """Clock ticks from the machine's boot to this process's start; None where there is no /proc (proc(5): stat, field 22)."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def reading(state: State, top: int = 20) -> Result:
    """All cheap readings in one answer: ledger, connections, allocators, tasks, loops."""
    look = state.look()
    ledger = _merged(state.ledgers, top)
    if ledger and look:
        _add_transports(ledger["top"], look)
    loops, unseen = state.loops(), state.unknown()
    return {
        "ledger": ledger,
        "connections": state.servers.to_json(look, top),
        "allocators": allocators.read().to_json(),
        "tracemalloc_bytes": tracemalloc.counted_bytes(),
        "heap": state.heap(),
        "tasks": state.task_count(),
        "task_states": state.task_states(),
        "loops": None if "loop_lag" in unseen else len(loops),
        "loop_lag": None if "loop_lag" in unseen else state.lag.histogram.to_json(),
        "loop_pending_seconds": None if "loop_lag" in unseen else state.lag.pending_seconds,
        "unknown": unseen,
        "gc": _collector(),
        "window": state.windows.kind,
        "troubles": state.troubles,
    }


def sample(state: State) -> Result:
    """The numbers that the flight recorder reads every second; no lists."""
    memory, look = allocators.read(), state.look()
    state.heap()  # checks first that the heap's hooks are still in place
    ledgers = [ledger.summary() for ledger in state.ledgers]
    return {
        "in_use_bytes": memory.in_use,
        "python_live_bytes": memory.python_live,
        "malloc_live_bytes": memory.malloc_live,
        "python_large_blocks": memory.python_large_blocks,
        # Done tasks that something still refers to are not counted: they hold memory, but run no more.
        "tasks": None if (states := state.task_states()) is None else sum(states.values()),
        "loop_lag_seconds": state.lag.seconds,
        "loop_pending_seconds": None if why_unseen() else state.lag.pending_seconds,
        "gc_collections": [generation["collections"] for generation in gc.get_stats()],
        "gc_young_objects": gc.get_count()[0],
        "streams": {key: sum(each[key] for each in ledgers) for key in ledgers[0]} if ledgers else None,
        "responses": look and {"open": look.open, "transport_bytes": look.transport_bytes},
    }


def connections(state: State, top: int = 1000) -> Result:
    """The connections of this process's servers; see `Servers.to_json`."""
    return state.servers.to_json(state.look(), top)


def registered(state: State) -> Result:
    """The metrics that the service registered with prometheus_client."""
    from .readings import registered

    return registered.read()


def begin_tracemalloc(state: State, seconds: float, frames: int = 5) -> Result:
    state.begin_window()
    # Imported and used before the tracer starts: else their allocations would be counted as the service's.
    import mmap  # noqa: F401

    from . import forked  # noqa: F401
    from .readings.allocation import heap  # noqa: F401

    reading(state)
    return state.windows.begin_tracemalloc(seconds=seconds, frames=frames)


def finish_tracemalloc(state: State, room_bytes: int | None = None) -> Result:
    import mmap

    from .readings.allocation import heap

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
    return state.windows.begin_memray(
        path=path, seconds=seconds, aggregated=aggregated, python_allocators=python_allocators, native=native
    )


def finish_memray(state: State) -> Result:
    seconds = state.windows.age("memray")
    return {"seconds": seconds, "ending_seconds": state.end_window()}


def end_window(state: State) -> Result:
    """Close the open window, if any, and discard its traces."""
    return {"kind": state.windows.kind, "ending_seconds": state.end_window()}


def watch(state: State) -> Result:
    """The open window's effect on the service (lag, events, stalls), for a monitor that polls every second; microseconds."""
    return {
        "window": state.windows.kind,
        **state.lag.to_json(),
        "events": sum(ledger.events_out() for ledger in state.ledgers) if state.ledgers else None,
        "last_fork": state.last_fork,
        "last_ending_seconds": state.last_ending,
        "last_ending_cpu_seconds": state.last_ending_cpu,
    }


def collect(state: State) -> Result:
    """A full garbage collection, on a user's request: it stalls all threads, 50-100 ms per million objects."""
    began = time.monotonic()
    return {"unreachable": gc.collect(), "seconds": time.monotonic() - began}


def tasks(state: State, fork: bool = True, leaks: bool = False, room_bytes: int | None = None) -> Result:
    """Every task and thread by the stack where it waits. Without a fork: about 20 microseconds a task, with the GIL held.

    leaks   look for tasks that nothing can wake, too, in a walk over all objects; only with a fork
    """
    from .readings.running import tasks, threads  # they import asyncio: only at the first request

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


def census(state: State, first: bool = False, again: bool = False, room_bytes: int | None = None) -> Result:
    """Live objects by type.

    first        mark all objects, so that a later census and `explain` can tell which are new
    again        it is to be compared with the last one with `first`
    room_bytes   here and below: bytes of memory that are free, as far as the monitor knows
    """
    from .readings import objects

    marks = None
    if first:
        from .readings.newness import FirstLook

        marks = FirstLook()
        state.remember(marks)
    since = state.first_look if again else None
    return _walk(lambda until: objects.census(until, marks, since), room_bytes)


def explain(
    state: State, types: list[str], samples: int = 12, new: bool = False, room_bytes: int | None = None
) -> Result:
    """Why objects of these types are alive. `new`: only objects made since the last census with `first`."""
    from .readings import objects
    from .readings.running import threads

    thread_frames, first = threads.frames_with_locals(), state.first_look if new else None
    work = _walk(lambda until: objects.explain(types, samples, until, first=first, threads=thread_frames), room_bytes)
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
    from .readings import retained

    return _walk(lambda until: retained.read(state.ledgers, until), room_bytes)


def _walk(work: Callable[[float], dict[str, Any]], room_bytes: int | None) -> Forked:
    """A forked walk; `work` takes its deadline (monotonic seconds), at which it must end by itself."""
    until = time.monotonic() + _WALK_SECONDS
    return Forked(lambda: work(until), seconds=_WALK_KILLED_SECONDS, room_bytes=room_bytes, remedy=_WALK_REMEDY)


OPERATIONS: dict[str, Callable[..., Result]] = {
    "hello": hello,
    "leave": leave,
    "reading": reading,
    "sample": sample,
    "connections": connections,
    "registered": registered,
    "tracemalloc.begin": begin_tracemalloc,
    "tracemalloc.finish": finish_tracemalloc,
    "memray.begin": begin_memray,
    "memray.finish": finish_memray,
    "window.end": end_window,
    "window.watch": watch,
    "gc.collect": collect,
    "tasks": tasks,
    "objects.census": census,
    "objects.explain": explain,
    "retained": retained,
}


def perform(state: State, op: str, params: dict[str, Any]) -> Result:
    """Run the operation `op`. Raises ProtocolError for an operation or parameter that this agent does not know."""
    operation = OPERATIONS.get(op)
    if operation is None:
        raise ProtocolError(
            f"this agent does not know the operation {op!r}",
            remedy="run the same version of highwater-diagnostics in the service and in the monitor",
        )
    try:
        return operation(state, **params)
    except TypeError as error:
        raise ProtocolError(f"the operation {op!r} does not take {sorted(params)}: {error}") from error


def _collector() -> dict[str, Any]:
    """`gc.get_stats`, generation by generation, youngest first: collections, objects collected and uncollectable.

    enabled   whether it runs by itself: it is switched on, and has a threshold
    """
    stats = gc.get_stats()
    return {
        "enabled": gc.isenabled() and gc.get_threshold()[0] > 0,
        "collections": [generation["collections"] for generation in stats],
        "collected": [generation["collected"] for generation in stats],
        "uncollectable": [generation["uncollectable"] for generation in stats],
        "counts": list(gc.get_count()),
        "frozen": gc.get_freeze_count(),
    }


def _merged(ledgers: list[StreamLedger], top: int) -> dict[str, Any] | None:
    """One answer for all ledgers of the process: a process that mounts two apps may have two."""
    if not ledgers:
        return None
    if len(ledgers) == 1:
        return ledgers[0].to_json(top)
    parts = [ledger.to_json(top) for ledger in ledgers]
    whole = parts[0]
    for number, part in enumerate(parts[1:], 2):
        whole["open"] += part["open"]
        whole["buffered_bytes"] += part["buffered_bytes"]
        whole["budget_bytes"] += part["budget_bytes"]
        whole["breakers"] += part["breakers"]
        whole["buffered_bytes_max"] = max(whole["buffered_bytes_max"], part["buffered_bytes_max"])
        if part["pool"]:
            whole["pool"] = {key: count + (whole["pool"] or {}).get(key, 0) for key, count in part["pool"].items()}
        if part["requests"]:
            requests = whole["requests"] or {}
            whole["requests"] = {key: count + requests.get(key, 0) for key, count in part["requests"].items()}
        for reason, count in part["rejected"].items():
            whole["rejected"][reason] = whole["rejected"].get(reason, 0) + count
        for route, row in part["routes"].items():
            whole["routes"][route if route not in whole["routes"] else f"{route} ({number})"] = row
        whole["top"] += part["top"]
    whole["top"] = sorted(whole["top"], key=lambda row: -row["buffered_bytes"])[:top]
    return whole


def _add_transports(rows: list[dict[str, Any]], look: ServerLook) -> None:
    """Add to each row of the ledger the bytes in its connection's transport, and the connection's file descriptor."""
    for row in rows:
        request = look.by_task.get(row["task"]) if row["task"] else None
        if request is not None:
            row["transport_bytes"], row["fd"] = request.transport_bytes, request.fd
