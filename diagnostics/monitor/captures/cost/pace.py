"""A worker's CPU share and events a second, between two readings of its counters (marks)."""

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
# With less CPU time than this between the marks (nanoseconds) contention is not computed; and its upper bound.
_LEAST_RUN, _MOST_CONTENTION = 1_000_000, 10.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A worker's counters at one moment (monotonic seconds); None for those that could not be read."""

    time: float
    cpu_seconds: float | None
    events: int | None
    ran: tuple[int, int] | None = None
    cores: CoresMark | None = None
    busy: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pace:
    """A worker's rates between two marks. cpu_share is of one core; events are those sent to clients, None without a ledger.

    contention   (CPU time + waiting for a core) / CPU time of the main thread; 1.0 where it never waits, or is too idle
    core_left    the share of a core that it could have used
    busy_share   the share of the time in which a thread of it ran or waited for a core; None where it is not counted
    """

    cpu_share: float | None
    events_per_second: float | None
    contention: float = 1.0
    core_left: CoreLeft = WHOLE_CORE
    busy_share: float | None = None


async def mark(worker: Worker) -> Mark:
    """Read the worker's counters. Never raises: counters that cannot be read are None."""
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
    """The share of the time between two marks in which some thread ran or waited for a core; at most 1.

    The sum over all threads, because only one at a time has the GIL, and one that waits for the GIL sleeps. A new thread
    counts from its start.
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
    """The worker's pace over the next `seconds`."""
    return await measure_since(await mark(worker), worker, seconds)


async def measure_since(first: Mark, worker: Worker, seconds: float) -> Pace:
    """Wait `seconds` and return the worker's pace since an earlier mark."""
    await asyncio.sleep(seconds)
    return between(first, await mark(worker))
