"""One run of a service under one setting: start it, apply the load, let it settle, end it.

Each run is a process of its own, so that runs are independent of each other. It has no monitor and no agent: they would be
measured, too. Memory is read from outside ten times a second, over the process and its descendants: PSS, so that shared pages
count once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import TargetError
from ...monitor.kernel.process import cpu_seconds, read_process
from ..clients.fleet.launch import FleetResult, launch
from ..clients.fleet.order import Order
from ..subjects.outside import family
from ..subjects.processes import Process, free_port, start, wait_for_listener
from .settings import Setting

__all__ = ["Trial", "Work", "run_trial"]

_READ_EVERY_SECONDS = 0.1
_MOST_FAILED = 0.1


@dataclass(frozen=True, slots=True)
class Work:
    """The work of each run: `order` without its port, after a start of at most `start_seconds`; `settle_seconds` follow."""

    command: Sequence[str]
    order: Order
    settle_seconds: float
    start_seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One run's result. Bytes; `cpu_seconds`: from the first stream to the end of settling; `events`: received by clients."""

    peak_bytes: int
    settled_bytes: int
    cpu_seconds: float
    events: int
    streams: int


async def run_trial(work: Work, setting: Setting, folder: Path) -> Trial:
    """Run the service once. Raises TargetError where it does not serve, or where the setting does not reach it."""
    port = free_port()
    words = [word.replace("{port}", str(port)) for word in work.command]
    name = f"service ({setting.name})"
    async with start(name, words, output=folder / "service.log", environment=setting.environment) as process:
        await wait_for_listener(process, port, work.start_seconds)
        _reached(process, setting)
        cpu = _cpu_seconds(process.pid)
        over = asyncio.Event()
        watching = asyncio.create_task(_peak(process.pid, over))
        try:
            result = await launch(work.order.at_port(port), 1, lambda progress: None)
            _served(result, process)
            settled = await _settled(process, work.settle_seconds)
            used = _cpu_seconds(process.pid) - cpu
        finally:
            over.set()
            peak = await watching
    return Trial(max(peak, settled), settled, used, result.tally.events, result.tally.streams)


def _reached(process: Process, setting: Setting) -> None:
    """Raise TargetError unless the setting is in effect in the service: a wrapper may start it with another environment."""
    process.check()
    for pid in family([process.pid]):
        environment = _text(pid, "environ").split("\0")
        if all(f"{name}={value}" in environment for name, value in setting.environment.items()) and (
            not setting.library or str(Path(setting.library).resolve()) in _text(pid, "maps")
        ):
            return
    raise TargetError(
        f"{setting.words} does not reach the service: no process of it has that in its environment and its memory",
        remedy="start the interpreter itself, without a wrapper that sets an environment of its own or is linked statically",
        code="setting_not_reached",
    )


def _served(result: FleetResult, process: Process) -> None:
    process.check()
    failed = result.tally.outcomes["failed"]
    if failed > _MOST_FAILED * result.tally.streams or not result.tally.events:
        why = ", ".join(f"{count} x {reason}" for reason, count in result.tally.errors.most_common()) or "no events"
        raise TargetError(
            f"the {process.name} failed {failed} of {result.tally.streams} streams ({why}); its last output:\n{process.tail()}",
            code="target_answers_errors",
        )


async def _peak(pid: int, over: asyncio.Event) -> int:
    most = 0
    while not over.is_set():
        most = max(most, _pss(pid))
        await asyncio.sleep(_READ_EVERY_SECONDS)
    return most


async def _settled(process: Process, seconds: float) -> int:
    """The lowest PSS in the second half of `seconds`: so memory that a timer returns late counts as freed."""
    began = time.monotonic()
    readings: list[int] = []
    while (elapsed := time.monotonic() - began) < seconds or not readings:
        process.check()
        await asyncio.sleep(_READ_EVERY_SECONDS)
        if elapsed >= seconds / 2:
            readings.append(_pss(process.pid))
    return min(readings)


def _pss(pid: int) -> int:
    """PSS of a process and all its descendants, in bytes; RSS where PSS cannot be read."""
    return sum(_pss_of(each) for each in family([pid]))


def _pss_of(pid: int) -> int:
    for line in _text(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    reading = read_process(pid)
    return reading.rss_bytes if reading is not None else 0


def _cpu_seconds(pid: int) -> float:
    return sum(cpu_seconds(each) or 0.0 for each in family([pid]))


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has just ended, or it is another user's
        return ""
