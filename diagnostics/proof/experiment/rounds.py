"""One round of a service under study: settle, read; apply the load and read meanwhile; remove it, settle, read.

`Rounds` has two implementations. `MemoryRounds` reads the memory of a process that lives through all rounds.
`exits.ExitRounds` starts a new process for each, because its rounds end with the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ...analysis.decision import Decision, Measure
from ...analysis.growth import (
    Reading,
    Round,
    growth_per_chunk,
    held_per_stream,
    in_window,
    kernel_queues,
    load_per_stream,
    peak_per_stream,
    remains_per_stream,
    resident_per_stream,
)
from ...errors import TargetSilentError
from ..clients.load import LoadReport, run_load
from ..clients.mix import Leaves, Mix
from ..scenario import Scenario
from ..subjects.monitor_client import LoadCapture
from ..subjects.subject import Subject
from .memory_readings import READ_EVERY_SECONDS, collected, look, settled
from .served import check_load

__all__ = ["CAPTURE_SECONDS", "LEAST_QUEUE_BYTES", "Measured", "MemoryRounds", "Rounds", "figures", "together"]

T = TypeVar("T")

# A slope through fewer readings is too uncertain.
_LEAST_READINGS = 6
# On a busy machine a round is prolonged, up to this factor, and at least up to this many seconds.
_MOST_PROLONGED = 10
_LEAST_PATIENCE_SECONDS = 60.0
# At a round's end, streams that end by themselves get this multiple of the longest one's duration to do so.
_FINISH_FACTOR = 1.5
_MOST_FINISH_SECONDS = 10.0
# Further streams, opened to have enough ended ones, leave after this many events; all of them get this many seconds.
_BRIEF_EVENTS = 3
_MOST_BRIEF_SECONDS = 20.0
_RESIDENT_FACTOR = 4
# Fewer bytes in the kernel's queue of one stream are normal for any socket.
LEAST_QUEUE_BYTES = 128 * 1024
# Rounds are prolonged by at most this factor until those queues are full.
_MOST_QUEUE_FACTOR = 4
CAPTURE_SECONDS = 3.0
# The clients stay this much longer than the round lasts.
_LOAD_OUTLIVES_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One round's result: a figure for each measure, `peak` in bytes per stream (None: not read), and the round itself.

    read   "in_use", or "rss" where in-use bytes are unknown; `why` then says why
    """

    figures: Mapping[Measure, float]
    load: LoadReport
    peak: float | None = None
    round: Round | None = None
    read: str = "in_use"
    why: str = ""


class Rounds(Protocol):
    """Runs a scenario's rounds; sides are named as in the scenario."""

    async def warm_up(self, side: str) -> None: ...

    async def measure(self, side: str) -> Measured: ...

    def widen(self, side: str) -> None: ...

    async def capture(self, side: str, decision: Decision) -> LoadCapture | None: ...

    async def balance(self, side: str) -> Mapping[str, int]: ...


class MemoryRounds:
    """Rounds of services that live on: their memory is read while streams are open and afterwards."""

    def __init__(self, scenario: Scenario, subjects: Mapping[str, Subject], seed: int) -> None:
        self._scenario = scenario
        self._subjects = subjects
        self._seed = seed
        # The reading at the end of a side's last round, which is also that at the beginning of its next one.
        self._at_rest: dict[str, Reading] = {}
        # Whether a side's streams end by themselves.
        self._ends = dict.fromkeys(subjects, False)
        # Seconds by which a side's rounds, and their transient, are longer than in the workload.
        self._later = dict.fromkeys(subjects, 0.0)
        # Resident memory varies by pages: where only it is known, more streams must end for a precise figure.
        self._factors = {side: _RESIDENT_FACTOR if one.monitor.unknown else 1 for side, one in subjects.items()}

    async def warm_up(self, side: str) -> None:
        """Run a round and discard it: imports, caches, connection pools, pages that are touched for the first time.

        Where the kernel's queues towards slow clients were not full at its end, the service's own buffers have not begun to
        fill: then rounds get a longer transient, and another one is discarded.
        """
        work = self._scenario.workload
        while True:
            warm, _ = await self._round(side, work.mix, judged=False)
            queued, filling = kernel_queues(warm, work.transient_seconds)
            few = queued < LEAST_QUEUE_BYTES * max(1, work.mix.slow)
            if (
                work.send_buffer_bytes
                or not filling
                or few
                or self._seconds(side) > work.seconds * _MOST_QUEUE_FACTOR / 2
            ):
                return
            self._later[side] += self._seconds(side)

    async def measure(self, side: str) -> Measured:
        """Run one round, after one with the light load where there is one. Raises TargetError where the service fails."""
        work, monitor = self._scenario.workload, self._subjects[side].monitor
        light = None if work.light is None else (await self._round(side, work.light, judged=True))[0]
        heavy, load = await self._round(side, work.mix, judged=True)
        why = monitor.unknown
        return Measured(
            figures(self._scenario, heavy, light, self._transient(side)),
            load,
            peak_per_stream(heavy),
            heavy,
            "rss" if why else "in_use",
            why,
        )

    def widen(self, side: str) -> None:
        """Let twice as many streams end in each further round, because the figures were not distinct from noise."""
        self._factors[side] *= 2

    async def capture(self, side: str, decision: Decision) -> LoadCapture | None:
        """Capture the holders of memory under the round's load; to be called last, because a tracer changes the figures.

        The streams stay open until the capture has ended: buffers are full then. None for a service without an agent.
        """
        one = self._subjects[side]
        if one.monitor.outside:
            return None
        one.thaw()
        until = asyncio.Event()
        load = asyncio.create_task(self._load(one, self._scenario.workload.mix, until, 120.0))
        try:
            await asyncio.sleep(self._later[side] + self._scenario.workload.transient_seconds / 2)
            return await one.monitor.capture(CAPTURE_SECONDS, until.set)
        finally:
            until.set()
            await _finished(load)

    async def balance(self, side: str) -> Mapping[str, int]:
        """Resident memory by its parts, in bytes, after all streams have ended."""
        one = self._subjects[side]
        self._at_rest[side] = await settled(one)
        return {} if one.monitor.outside else await one.monitor.balance()

    def _seconds(self, side: str) -> float:
        return self._scenario.workload.seconds + self._later[side]

    def _transient(self, side: str) -> float:
        return self._scenario.workload.transient_seconds + self._later[side]

    async def _round(self, side: str, mix: Mix, *, judged: bool) -> tuple[Round, LoadReport]:
        one, seconds = self._subjects[side], self._seconds(side)
        before = self._at_rest.pop(side, None) or await settled(one)
        until = asyncio.Event()
        start = time.monotonic()
        patience = max(seconds * _MOST_PROLONGED, _LEAST_PATIENCE_SECONDS)
        report = LoadReport()
        load = asyncio.create_task(self._load(one, mix, until, patience + _LOAD_OUTLIVES_SECONDS, report))
        readings: list[Reading] = []
        try:
            while not load.done():
                await asyncio.sleep(READ_EVERY_SECONDS)
                if (reading := await look(one, report.ended)) is not None:
                    readings.append(reading)
                elapsed = time.monotonic() - start
                window = in_window(readings, start, self._transient(side))
                if elapsed >= seconds and (not judged or len(window) >= _LEAST_READINGS):
                    break
                if elapsed > patience:
                    raise TargetSilentError(
                        f"the {side} app could be read only {len(readings)} times in {elapsed:.0f} s",
                        remedy="run this on a machine that is less busy",
                        code="machine_too_busy",
                    )
            if Measure.HELD in self._scenario.least:
                readings.append(await collected(one))
        finally:
            until.set()
            await _finished(load)
        check_load(report, side, self._scenario, one.process.tail(), open_streams=mix.streams if judged else 0)
        self._ends[side] = report.outcomes["completed"] > 0
        if judged:
            await self._enough(one, mix, report)
        after = self._at_rest[side] = await settled(one)
        return Round(start, mix.streams, report.streams, before, tuple(readings), after), report

    async def _enough(self, one: Subject, mix: Mix, report: LoadReport) -> None:
        """Let further streams begin and end, where too few have ended in the round for a precise figure per stream."""
        missing = self._scenario.workload.least_ended * self._factors[one.side] - report.ended
        if missing <= 0:
            return
        brief = Mix(((Leaves(after_events=_BRIEF_EVENTS), mix.streams),), again=True)
        until, more = asyncio.Event(), LoadReport()
        load = asyncio.create_task(self._load(one, brief, until, _MOST_BRIEF_SECONDS, more))
        try:
            while not load.done() and more.ended < missing:
                await asyncio.sleep(READ_EVERY_SECONDS)
                one.process.check()
        finally:
            until.set()
            await _finished(load)
        check_load(more, one.side, self._scenario, one.process.tail())
        report.add(more)

    async def _load(
        self, one: Subject, mix: Mix, until: asyncio.Event, most_seconds: float, report: LoadReport | None = None
    ) -> LoadReport:
        request = self._scenario.request(self._seed, one.side)
        return await run_load(
            "127.0.0.1",
            one.port,
            request,
            mix,
            until=until,
            most_seconds=most_seconds,
            finish=lambda longest: min(longest * _FINISH_FACTOR, _MOST_FINISH_SECONDS),
            seed=self._seed,
            report=report,
        )


def figures(scenario: Scenario, heavy: Round, light: Round | None, transient_seconds: float) -> dict[Measure, float]:
    """The figures of one round: `remains` and `resident` always, the others where the scenario judges them."""
    work = scenario.workload
    measured = {Measure.REMAINS: remains_per_stream(heavy), Measure.RESIDENT: resident_per_stream(heavy)}
    if Measure.GROWTH in scenario.least:
        measured[Measure.GROWTH] = growth_per_chunk(heavy, work.upstream.chunks_per_second, transient_seconds)
    if Measure.HELD in scenario.least:
        measured[Measure.HELD] = held_per_stream(heavy)
    if Measure.LOAD in scenario.least and light is not None:
        measured[Measure.LOAD] = load_per_stream(light, heavy)
    return measured


async def _finished(load: asyncio.Task[LoadReport]) -> LoadReport:
    try:
        return await load
    except asyncio.CancelledError:
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load
        raise


async def together(steps: Sequence[Awaitable[T]]) -> list[T]:
    """Run all concurrently and return their results; where one fails, cancel the others, then raise its error unchanged."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
