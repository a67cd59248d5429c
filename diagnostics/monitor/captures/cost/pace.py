"""How fast a worker goes: CPU share and events a second, between two marks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from ....errors import DiagnosticsError
from ...kernel.cores import WHOLE_CORE, CoreLeft, CoresMark, mark_cores, share_left
from ...kernel.process import cpu_seconds, loop_run_and_wait, threads_busy
from ...workers.targets import Worker

__all__ = ["Mark", "Pace", "between", "busy_share", "mark", "measure", "measure_since"]

_PATIENCE_SECONDS = 1.0
# Less than a millisecond of work in the time says nothing of how long a hundred would take.
_LEAST_RUN, _MOST_CONTENTION = 1_000_000, 10.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A worker at one moment (monotonic clock); None for what could not be read."""

    time: float
    cpu_seconds: float | None
    events: int | None
    ran: tuple[int, int] | None = None
    cores: CoresMark | None = None
    busy: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pace:
    """cpu_share is of one core; events are those sent to clients, None without a ledger.

    contention   how many times as long as its CPU time the main thread took, since others had the cores; 1.0 where it is
                 alone, or too idle to tell
    core_left    what it could have used
    busy_share   of the time, how much a thread of it ran or waited for a core; None where it is not counted
    """

    cpu_share: float | None
    events_per_second: float | None
    contention: float = 1.0
    core_left: CoreLeft = WHOLE_CORE
    busy_share: float | None = None


async def mark(worker: Worker) -> Mark:
    """Never raises for a worker in trouble: what it does not tell is None."""
    events = None
    if worker.socket is not None:
        with contextlib.suppress(DiagnosticsError):
            events = (await worker.ask("window.watch", patience=_PATIENCE_SECONDS))["events"]
    ran, cores = loop_run_and_wait(worker.pid), mark_cores(worker.pid)
    return Mark(time.monotonic(), cpu_seconds(worker.pid), events, ran, cores, threads_busy(worker.pid))


def between(first: Mark, second: Mark) -> Pace:
    seconds = max(second.time - first.time, 1e-3)

    def rate(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else round(max(0.0, after - before) / seconds, 4)

    share, events = rate(first.cpu_seconds, second.cpu_seconds), rate(first.events, second.events)
    left = share_left(first.cores, second.cores, seconds, share or 0.0) if first.cores and second.cores else WHOLE_CORE
    return Pace(share, events, _contention(first.ran, second.ran), left, busy_share(first, second))


def busy_share(first: Mark, second: Mark) -> float | None:
    """Of the time between two marks, how much some thread ran or waited for a core; at most 1.

    All threads together, because only one at a time has the GIL: who waits for that sleeps. A new thread counts from its start.
    """
    spent = [ends - first.busy.get(thread, 0) for thread, ends in second.busy.items()]
    if not spent:
        return None
    return round(min(1.0, sum(spent) / 1e9 / max(second.time - first.time, 1e-3)), 3)


def _contention(first: tuple[int, int] | None, second: tuple[int, int] | None) -> float:
    if first is None or second is None:
        return 1.0
    run, wait = (after - before for before, after in zip(first, second, strict=True))
    return round(min(_MOST_CONTENTION, (run + wait) / run), 2) if run >= _LEAST_RUN else 1.0


async def measure(worker: Worker, seconds: float) -> Pace:
    """Watch the worker for so long."""
    return await measure_since(await mark(worker), worker, seconds)


async def measure_since(first: Mark, worker: Worker, seconds: float) -> Pace:
    """Watch the worker for so long and return its pace since an earlier mark."""
    await asyncio.sleep(seconds)
    return between(first, await mark(worker))
