"""What a monitor asks for again and again: the cheap readings. No fork, no tracer."""

from __future__ import annotations

import gc
import os
import sys

from ..loops.asyncio_tasks import why_unseen
from ..reading_cache import rest_if_due, stretches
from ..readings.allocation import allocators, installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..servers.snapshot import ServerLook
    from ..state import State
    from .forked import Result

__all__ = ["READINGS", "reading"]


def hello(state: State) -> Result:
    """Identifies the process: `pid` in its own PID namespace, `start_ticks` of /proc/self/stat, versions of its software."""
    return {
        "pid": os.getpid(),
        "start_ticks": _start_ticks(),
        "started": state.started,
        "python": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        **installed.memray(),
        "attached": state.leave is not None,
        "window": state.window_kind,
    }


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
    rest_if_due()
    ledger = _ledger(state, look, top) if state.ledgers else None
    rest_if_due()
    connections = state.servers.to_json(look, top)
    rest_if_due()
    memory, tracing = allocators.read().to_json(), allocators.tracemalloc_bytes()
    rest_if_due()
    heap = state.heap()
    rest_if_due()
    tasks, states = state.task_count(), state.task_states()
    rest_if_due()
    loops, unseen = state.loops(), state.unknown()
    return {
        "ledger": ledger,
        "connections": connections,
        "allocators": memory,
        "tracemalloc_bytes": tracing,
        "heap": heap,
        "tasks": tasks,
        "task_states": states,
        "loops": None if "loop_lag" in unseen else len(loops),
        "loop_lag": None if "loop_lag" in unseen else state.lag.histogram.to_json(),
        "loop_pending_seconds": None if "loop_lag" in unseen else state.lag.pending_seconds,
        "unknown": unseen,
        "gc": _collector(),
        "window": state.window_kind,
        "troubles": state.troubles,
    }


def _ledger(state: State, look: ServerLook | None, top: int) -> dict[str, Any]:
    from .ledgers import add_transports, merged  # only services that are instrumented have a ledger

    ledger = merged(state.ledgers, top)
    if look:
        add_transports(ledger["top"], look)
    return ledger


def sample(state: State) -> Result:
    """The numbers that the flight recorder reads every second; no lists."""
    memory = allocators.read()
    rest_if_due()
    look = state.look()
    state.heap()  # checks first that the heap's hooks are still in place
    rest_if_due()
    ledgers = [ledger.summary() for ledger in state.ledgers]
    rest_if_due()
    states = state.task_states()
    rest_if_due()
    return {
        "in_use_bytes": memory.in_use,
        "python_live_bytes": memory.python_live,
        "malloc_live_bytes": memory.malloc_live,
        "python_large_blocks": memory.python_large_blocks,
        # Done tasks that something still refers to are not counted: they hold memory, but run no more.
        "tasks": None if states is None else sum(states.values()),
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
    from ..readings import registered

    return registered.read()


def watch(state: State) -> Result:
    """The open window's effect on the service (lag, events, stalls), for a monitor that polls every second; microseconds."""
    return {
        "window": state.window_kind,
        **state.lag.to_json(),
        "events": sum(ledger.events_out() for ledger in state.ledgers) if state.ledgers else None,
        "last_fork": state.last_fork,
        "last_ending_seconds": state.last_ending,
        "last_ending_cpu_seconds": state.last_ending_cpu,
    }


def held(state: State) -> Result:
    """How long answers kept the GIL since this was last asked; see `Stretches.told`."""
    return stretches.told()


READINGS: dict[str, Callable[..., Result]] = {
    "hello": hello,
    "reading": reading,
    "sample": sample,
    "connections": connections,
    "registered": registered,
    "held": held,
    "window.watch": watch,
}


def _collector() -> dict[str, Any]:
    """`gc.get_stats`, generation by generation, youngest first: collections, objects collected and uncollectable.

    enabled   whether it runs by itself: it is switched on, and has a threshold
    saved     how many objects it keeps instead of freeing them, where gc.DEBUG_SAVEALL tells it to; else None
    """
    stats = gc.get_stats()
    return {
        "enabled": gc.isenabled() and gc.get_threshold()[0] > 0,
        "collections": [generation["collections"] for generation in stats],
        "collected": [generation["collected"] for generation in stats],
        "uncollectable": [generation["uncollectable"] for generation in stats],
        "counts": list(gc.get_count()),
        "frozen": gc.get_freeze_count(),
        "saved": len(gc.garbage) if gc.get_debug() & gc.DEBUG_SAVEALL else None,
    }
