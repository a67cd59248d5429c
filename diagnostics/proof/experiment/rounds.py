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
from ..subjects.monitor_client import Capture
from ..subjects.subject import Subject
from .looks import READ_EVERY_SECONDS, collected, look, settled
from .served import check_load

__all__ = ["CAPTURE_SECONDS", "LEAST_QUEUE_BYTES", "Measured", "MemoryRounds", "Rounds", "figures", "together"]

T = TypeVar("T")

# A slope through fewer points than this says little about its own error.
_LEAST_READINGS = 6
# On a machine that is busy with something else a round is prolonged, up to this factor and at least up to so many seconds.
_MOST_PROLONGED = 10
_LEAST_PATIENCE_SECONDS = 60.0
# Streams that would end by themselves may do so at a round's end; so many times what the longest of them took.
_FINISH_FACTOR = 1.5
_MOST_FINISH_SECONDS = 10.0
# Those that are opened for the sake of their number leave after so many events, and there is so much time for all of them.
_BRIEF_EVENTS = 3
_MOST_BRIEF_SECONDS = 20.0
_RESIDENT_FACTOR = 4
# Less than this in the kernel's queue of one stream is what every socket has.
LEAST_QUEUE_BYTES = 128 * 1024
# Rounds are made so many times as long, at most, until those queues are full.
_MOST_QUEUE_FACTOR = 4
CAPTURE_SECONDS = 3.0
# The clients stay as long as the round lasts, and a little longer.
_LOAD_OUTLIVES_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one round gave: a figure for each measure, `peak` in bytes per stream (None: not read), and what it comes from.

    `read` is what was read as memory: in_use, or rss where bytes in use are unknown, and `why` then says why they are.
    """

    figures: Mapping[Measure, float]
    load: LoadReport
    peak: float | None = None
    round: Round | None = None
    read: str = "in_use"
    why: str = ""


class Rounds(Protocol):
    """How a scenario's rounds are run; sides are named as in the scenario."""

    async def warm_up(self, side: str) -> None: ...

    async def measure(self, side: str) -> Measured: ...

    def widen(self, side: str) -> None: ...

    async def capture(self, side: str, decision: Decision) -> Capture | None: ...

    async def balance(self, side: str) -> Mapping[str, int]: ...


class MemoryRounds:
    """Rounds of services that go on living: their memory is read while streams are open and after."""

    def __init__(self, scenario: Scenario, subjects: Mapping[str, Subject], seed: int) -> None:
        self._scenario = scenario
        self._subjects = subjects
        self._seed = seed
        # The end of a side's last round, which is the beginning of its next one: nothing happens in between.
        self._at_rest: dict[str, Reading] = {}
        # Whether a side's streams end by themselves.
        self._ends = dict.fromkeys(subjects, False)
        # Seconds by which a side's rounds are longer than the workload says, and begin to be judged later.
        self._later = dict.fromkeys(subjects, 0.0)
        # Resident memory comes and goes by pages: where it stands alone, more streams have to tell what one of them leaves.
        self._factors = {side: _RESIDENT_FACTOR if one.monitor.unknown else 1 for side, one in subjects.items()}

    async def warm_up(self, side: str) -> None:
        """A whole round that is thrown away: imports, caches, connection pools, pages that are touched for the first time.

        Where the kernel's queues towards slow clients were not yet full at its end, what the service itself buffers has not
        begun: then rounds begin to be judged later, and another one is thrown away.
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
        """Let twice as many streams end in each further round: what they left was not to be told from noise."""
        self._factors[side] *= 2

    async def capture(self, side: str, decision: Decision) -> Capture | None:
        """Look what holds the memory under the round's load; a tracer changes what is read, so nothing is read afterwards.

        The streams stay open until the capture is over: buffers are full then. None for a service that has no agent.
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
        """Resident memory by its parts, streams being over."""
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
        """Let further streams begin and end, where those of the round are too few to tell what one of them leaves."""
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
    found = {Measure.REMAINS: remains_per_stream(heavy), Measure.RESIDENT: resident_per_stream(heavy)}
    if Measure.GROWTH in scenario.least:
        found[Measure.GROWTH] = growth_per_chunk(heavy, work.upstream.chunks_per_second, transient_seconds)
    if Measure.HELD in scenario.least:
        found[Measure.HELD] = held_per_stream(heavy)
    if Measure.LOAD in scenario.least and light is not None:
        found[Measure.LOAD] = load_per_stream(light, heavy)
    return found


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
