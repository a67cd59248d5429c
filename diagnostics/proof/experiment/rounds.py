"""One round of a service under study: settle, read; put the load on it and read meanwhile; take it off, settle, read.

Two kinds of rounds answer to one name. `MemoryRounds` reads the memory of a process that lives through all of them.
`exits.ExitRounds` needs a new process for each, because its rounds end with the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ...analysis.decision import Measure
from ...analysis.growth import (
    Reading,
    Round,
    growth_per_chunk,
    held_per_stream,
    in_window,
    load_per_stream,
    peak_per_stream,
    remains_per_stream,
)
from ...errors import TargetError, TargetSilentError
from ..clients.load import LoadReport, run_load
from ..clients.mix import Mix
from ..scenario import Scenario
from ..subjects.monitor_client import Capture
from ..subjects.sockets import connections
from ..subjects.subject import Subject

__all__ = ["CAPTURE_SECONDS", "Measured", "MemoryRounds", "Rounds", "check_load", "figures", "settled", "together"]

T = TypeVar("T")

_READ_EVERY_SECONDS = 0.1
# A slope through fewer points than this says little about its own error.
_LEAST_READINGS = 6
# On a machine that is busy with something else a round is prolonged, up to this factor and at least up to so many seconds.
_MOST_PROLONGED = 10
_LEAST_PATIENCE_SECONDS = 60.0
_WARM_UP_SECONDS = 0.8
_LEAST_SETTLE_SECONDS = 0.3
# On a quiet machine all is over within one second; on a busy one a service needed four to see that its clients had gone.
_MOST_SETTLE_SECONDS = 20.0
# A service that tells nothing for so long is silent.
_SILENT_SECONDS = 30.0
# Settled: two readings in a row differ by less than this.
_SETTLED_BYTES = 16 * 1024
CAPTURE_SECONDS = 3.0
_MOST_TRIES = 50
# The clients stay as long as the round lasts, and a little longer.
_LOAD_OUTLIVES_SECONDS = 3.0
# More clients than this share turned away: the service fails, and its memory is beside the point.
_MOST_FAILED = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """What one round gave: a figure for each measure, `peak` in bytes per stream (None: not read), and what it comes from.

    `read` is what was read as memory: in_use, or rss for a service that can be read from outside only.
    """

    figures: Mapping[Measure, float]
    load: LoadReport
    peak: float | None = None
    round: Round | None = None
    read: str = "in_use"


class Rounds(Protocol):
    """How a scenario's rounds are run; sides are named as in the scenario."""

    async def warm_up(self, side: str) -> None: ...

    async def measure(self, side: str) -> Measured: ...

    async def capture(self, side: str) -> Capture | None: ...

    async def balance(self, side: str) -> Mapping[str, int]: ...


class MemoryRounds:
    """Rounds of services that go on living: their memory is read while streams are open and after."""

    def __init__(self, scenario: Scenario, subjects: Mapping[str, Subject], seed: int) -> None:
        self._scenario = scenario
        self._subjects = subjects
        self._seed = seed

    async def warm_up(self, side: str) -> None:
        """A short round that is thrown away: imports, caches, connection pools."""
        await self._round(side, self._scenario.workload.mix, _WARM_UP_SECONDS, judged=False)

    async def measure(self, side: str) -> Measured:
        """Run one round, after one with the light load where there is one. Raises TargetError where the service fails."""
        work = self._scenario.workload
        light = None if work.light is None else (await self._round(side, work.light, work.seconds, judged=True))[0]
        heavy, load = await self._round(side, work.mix, work.seconds, judged=True)
        read = "rss" if self._subjects[side].monitor.outside else "in_use"
        return Measured(figures(self._scenario, heavy, light), load, peak_per_stream(heavy), heavy, read)

    async def capture(self, side: str) -> Capture | None:
        """Look what holds the memory under the round's load; a tracer changes what is read, so nothing is read afterwards.

        None for a service that has no agent.
        """
        one = self._subjects[side]
        if one.monitor.outside:
            return None
        one.thaw()
        until = asyncio.Event()
        load = asyncio.create_task(self._load(one, self._scenario.workload.mix, until, 120.0))
        try:
            await asyncio.sleep(self._scenario.workload.transient_seconds / 2)
            return await one.monitor.capture(CAPTURE_SECONDS, until.set)
        finally:
            until.set()
            await _finished(load)

    async def balance(self, side: str) -> Mapping[str, int]:
        """Resident memory by its parts, streams being over."""
        one = self._subjects[side]
        await settled(one)
        return {} if one.monitor.outside else await one.monitor.balance()

    async def _round(self, side: str, mix: Mix, seconds: float, *, judged: bool) -> tuple[Round, LoadReport]:
        one = self._subjects[side]
        before = await settled(one)
        until = asyncio.Event()
        start = time.monotonic()
        patience = max(seconds * _MOST_PROLONGED, _LEAST_PATIENCE_SECONDS)
        load = asyncio.create_task(self._load(one, mix, until, patience + _LOAD_OUTLIVES_SECONDS))
        readings: list[Reading] = []
        try:
            while not load.done():
                await asyncio.sleep(_READ_EVERY_SECONDS)
                if (reading := await _reading(one)) is not None:
                    readings.append(reading)
                elapsed = time.monotonic() - start
                window = in_window(readings, start, self._scenario.workload.transient_seconds)
                if elapsed >= seconds and (not judged or len(window) >= _LEAST_READINGS):
                    break
                if elapsed > patience:
                    raise TargetSilentError(
                        f"the {side} app could be read only {len(readings)} times in {elapsed:.0f} s",
                        remedy="run this on a machine that is less busy",
                        code="machine_too_busy",
                    )
            if Measure.HELD in self._scenario.least:
                readings.append(await _collected(one))
        finally:
            until.set()
            report = await _finished(load)
        check_load(report, side, self._scenario, one.process.tail(), open_streams=mix.streams if judged else 0)
        after = await settled(one)
        return Round(start, mix.streams, report.streams, before, tuple(readings), after), report

    async def _load(self, one: Subject, mix: Mix, until: asyncio.Event, most_seconds: float) -> LoadReport:
        request = self._scenario.request(self._seed, one.side)
        return await run_load(
            "127.0.0.1", one.port, request, mix, until=until, most_seconds=most_seconds, seed=self._seed
        )


def figures(scenario: Scenario, heavy: Round, light: Round | None) -> dict[Measure, float]:
    """The figures of one round: `remains` always, the others where the scenario judges them."""
    work = scenario.workload
    found = {Measure.REMAINS: remains_per_stream(heavy)}
    if Measure.GROWTH in scenario.least:
        found[Measure.GROWTH] = growth_per_chunk(heavy, work.upstream.chunks_per_second, work.transient_seconds)
    if Measure.HELD in scenario.least:
        found[Measure.HELD] = held_per_stream(heavy)
    if Measure.LOAD in scenario.least and light is not None:
        found[Measure.LOAD] = load_per_stream(light, heavy)
    return found


def check_load(report: LoadReport, side: str, scenario: Scenario, output: str, *, open_streams: int = 0) -> None:
    """Raise TargetError where the service did not do its work, so that its memory proves nothing.

    An upstream that never ends makes a stream that ends a failure too: a service that drops its clients has a flat memory.
    So has one that sends them nothing: `open_streams` times the least events must have come (0: not asked for).
    """
    work = scenario.workload
    failed = report.outcomes["failed"] + (0 if work.may_reject else report.outcomes["rejected"])
    why = dict(report.errors)
    if work.upstream.events is None and not work.may_end and report.outcomes["completed"]:
        failed += report.outcomes["completed"]
        why["ended_early"] = report.outcomes["completed"]
    if failed > _MOST_FAILED * report.streams:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(why.items()))
        raise TargetError(
            f"the {side} app failed {failed} of {report.streams} streams ({reasons}); its last output:\n{output}",
            code="target_answers_errors",
        )
    if report.events < work.least_events * open_streams:
        raise TargetError(
            f"the {side} app sent {report.events} events to {open_streams} open streams, too few to have done its work;"
            f" its last output:\n{output}",
            code="target_serves_nothing",
        )


async def settled(one: Subject) -> Reading:
    """Wait until the clients' sockets are gone, garbage is collected and in-use bytes stand still; return the last reading.

    Not for ever: what does not settle in time is counted as it is.
    """
    began = time.monotonic()
    last: Reading | None = None
    while True:
        await one.collect()
        await asyncio.sleep(_READ_EVERY_SECONDS)
        reading = await _reading(one)
        waited = time.monotonic() - began
        if reading is None:
            if waited > _SILENT_SECONDS:
                raise TargetSilentError(f"the {one.side} app does not answer; its last output:\n{one.process.tail()}")
            continue
        still = last is not None and abs(reading.in_use_bytes - last.in_use_bytes) < _SETTLED_BYTES
        if waited >= _LEAST_SETTLE_SECONDS and still and connections(one.port) <= one.beside:
            return reading
        if waited > _MOST_SETTLE_SECONDS:
            return reading
        last = reading


async def _collected(one: Subject) -> Reading:
    """A reading without what only waits for the collector, the clients being there. Raises TargetSilentError."""
    for _ in range(_MOST_TRIES):
        await one.collect()
        # The service collects when its loop comes by.
        await asyncio.sleep(2 * _READ_EVERY_SECONDS)
        if (reading := await _reading(one)) is not None:
            return reading
    raise TargetSilentError(f"the {one.side} app does not answer; its last output:\n{one.process.tail()}")


async def _reading(one: Subject) -> Reading | None:
    one.process.check()
    try:
        return await one.monitor.reading()
    except TargetError as error:
        # The monitor leaves with its subject: say which of them ended first, and what it printed.
        raise await one.process.blamed(error) from error


async def _finished(load: asyncio.Task[LoadReport]) -> LoadReport:
    try:
        return await load
    except asyncio.CancelledError:
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load
        raise


async def together(steps: Sequence[Awaitable[T]]) -> list[T]:
    """Wait for all and give their results; where one fails, end the others first, then raise its error as it is."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
