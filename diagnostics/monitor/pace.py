"""How fast a worker goes: CPU share and events a second, between two marks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from ..errors import DiagnosticsError
from .process import read_process
from .targets import Worker

__all__ = ["Mark", "Pace", "between", "mark", "measure"]

_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A worker at one moment (monotonic clock); None for what could not be read."""

    time: float
    cpu_seconds: float | None
    events: int | None


@dataclass(frozen=True, slots=True)
class Pace:
    """cpu_share is of one core; events are those sent to clients, None without a ledger."""

    cpu_share: float | None
    events_per_second: float | None


async def mark(worker: Worker) -> Mark:
    """Never raises for a worker in trouble: what it does not tell is None."""
    events = None
    if worker.socket is not None:
        with contextlib.suppress(DiagnosticsError):
            events = (await worker.ask("window.watch", patience=_PATIENCE_SECONDS))["events"]
    process = read_process(worker.pid)
    return Mark(time.monotonic(), process.cpu_seconds if process else None, events)


def between(first: Mark, second: Mark) -> Pace:
    seconds = max(second.time - first.time, 1e-3)

    def rate(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else round(max(0.0, after - before) / seconds, 4)

    return Pace(rate(first.cpu_seconds, second.cpu_seconds), rate(first.events, second.events))


async def measure(worker: Worker, seconds: float) -> Pace:
    """Watch the worker for so long."""
    first = await mark(worker)
    await asyncio.sleep(seconds)
    return between(first, await mark(worker))
