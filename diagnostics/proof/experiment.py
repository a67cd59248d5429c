"""One experiment: the same work for a broken and a fixed service, round by round, until the rule can decide.

    start the upstream and the subjects, each in a process of its own
    warm up: one short round each, thrown away (imports, caches, connection pools)
    rounds: broken and fixed alternate and change their order, so that a drift of the machine meets both alike
        settle, read; open the streams, read while they run; close them, settle, read
    look where the plan says so, decide
    captures: after the last reading, because a tracer would change what is read

Nothing here judges: figures come from `analysis.growth`, decisions from `analysis.decision`. A subject that dies, never
listens or answers errors is a TargetError with its last output, never a verdict.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..analysis.decision import Decision, Finding, Measure, decide
from ..analysis.growth import Reading, Round, growth_per_chunk, in_window, peak_per_stream, remains_per_stream
from ..errors import TargetError, TargetSilentError
from .load import LoadReport, run_load
from .monitor_client import Capture
from .scenario import Scenario
from .sockets import connections
from .subject import Subject, serve_command, subject, upstream

__all__ = ["Outcome", "SideOutcome", "Watch", "check_load", "run"]

_READ_EVERY_SECONDS = 0.1
# A slope through fewer points than this says little about its own error.
_LEAST_READINGS = 6
# On a machine that is busy with something else a round is prolonged up to this factor.
_MOST_PROLONGED = 5
_WARM_UP_SECONDS = 0.8
_LEAST_SETTLE_SECONDS = 0.3
_MOST_SETTLE_SECONDS = 3.0
# Settled: two readings in a row differ by less than this.
_SETTLED_BYTES = 16 * 1024
_CAPTURE_SECONDS = 3.0
# More clients than this share turned away: the service fails, and its memory is beside the point.
_MOST_FAILED = 0.1


class Watch(Protocol):
    """Who is told how the experiment goes."""

    def doing(self, what: str, step: int, steps: int) -> None: ...

    def measured(self, side: str, number: int, figures: Mapping[Measure, float], peak: float) -> None: ...


@dataclass
class SideOutcome:
    """What came out for one subject: `figures` hold one value a round, in the unit of their measure."""

    side: str
    app: str
    expected: Decision
    rounds: list[Round] = field(default_factory=list)
    loads: list[LoadReport] = field(default_factory=list)
    figures: dict[Measure, list[float]] = field(default_factory=lambda: {measure: [] for measure in Measure})
    peaks: list[float] = field(default_factory=list)
    finding: Finding | None = None
    capture: Capture | None = None

    @property
    def decision(self) -> Decision:
        return Decision.INCONCLUSIVE if self.finding is None else self.finding.decision

    @property
    def verified(self) -> bool:
        """Whether the decision is the one that the claim foretells."""
        return self.decision is self.expected


@dataclass
class Outcome:
    """The experiment's result. `began` is wall clock, `seconds` how long it took."""

    scenario: Scenario
    seed: int
    sides: list[SideOutcome]
    began: float
    seconds: float = 0.0

    @property
    def verified(self) -> bool:
        return all(side.verified for side in self.sides)


async def run(scenario: Scenario, sides: Sequence[str], *, seed: int, capture: bool, watch: Watch) -> Outcome:
    """Run `scenario` for `sides` ("broken", "fixed") and return what came out.

    Raises TargetError where a subject, the upstream or a monitor fails. Every process is gone when this returns or raises.
    """
    outcome = Outcome(
        scenario, seed, [SideOutcome(side, scenario.apps[side], scenario.expected[side]) for side in sides], time.time()
    )
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proof-")))
        watch.doing("starting the upstream and the apps", 0, 1)
        environment = {"UPSTREAM_BASE_URL": await stack.enter_async_context(upstream(folder)), **scenario.environment}
        subjects = {
            side.side: await stack.enter_async_context(
                subject(
                    side.side,
                    serve_command(side.app, scenario.workload.send_buffer_bytes),
                    folder=folder,
                    environment=environment,
                )
            )
            for side in outcome.sides
        }
        await _together([each.ready() for each in subjects.values()])
        await _Bench(outcome, subjects, watch).run(capture=capture)
    outcome.seconds = time.monotonic() - began
    return outcome


class _Bench:
    """The subjects on the bench, and the steps of the experiment in their order."""

    def __init__(self, outcome: Outcome, subjects: Mapping[str, Subject], watch: Watch) -> None:
        self._outcome = outcome
        self._scenario = outcome.scenario
        self._subjects = subjects
        self._watch = watch

    async def run(self, *, capture: bool) -> None:
        sides = self._outcome.sides
        plan = self._scenario.plan
        # To the first look; where that decides nothing the bar jumps back once, which is what happened.
        steps = len(sides) * (plan.looks[0] + 1) + capture
        step = 0
        for side in sides:
            self._watch.doing(f"warming up the {side.side} app", step, steps)
            await self._round(self._subjects[side.side], _WARM_UP_SECONDS, judged=False)
            step += 1
        for number in range(1, plan.most_rounds + 1):
            open_sides = [side for side in sides if side.finding is None]
            steps = max(steps, step + len(open_sides) + capture)
            for side in open_sides if number % 2 else reversed(open_sides):
                self._watch.doing(f"round {number} of {_next_look(plan.looks, number)}, {side.side} app", step, steps)
                await self._measure(side, number)
                step += 1
            if number in plan.looks:
                for side in open_sides:
                    finding = decide(side.figures, self._scenario.least, plan)
                    if finding.decision is not Decision.INCONCLUSIVE or number == plan.most_rounds:
                        side.finding = finding
            if all(side.finding is not None for side in sides):
                break
        if capture:
            self._watch.doing("capturing what is held, with memray", step, steps)
            await _together([self._capture(side) for side in sides])
            step += 1
        self._watch.doing("done", step, step)

    async def _measure(self, side: SideOutcome, number: int) -> None:
        round_, load = await self._round(self._subjects[side.side], self._scenario.workload.seconds, judged=True)
        work = self._scenario.workload
        side.rounds.append(round_)
        side.loads.append(load)
        if Measure.GROWTH in self._scenario.least:
            pace = work.upstream.chunks_per_second
            side.figures[Measure.GROWTH].append(growth_per_chunk(round_, pace, work.transient_seconds))
        side.figures[Measure.REMAINS].append(remains_per_stream(round_))
        side.peaks.append(peak_per_stream(round_))
        latest = {measure: values[-1] for measure, values in side.figures.items() if values}
        self._watch.measured(side.side, number, latest, side.peaks[-1])

    async def _round(self, one: Subject, seconds: float, *, judged: bool) -> tuple[Round, LoadReport]:
        work = self._scenario.workload
        before = await settled(one)
        until = asyncio.Event()
        start = time.monotonic()
        load = asyncio.create_task(self._load(one, until, seconds * _MOST_PROLONGED + _MOST_SETTLE_SECONDS))
        readings: list[Reading] = []
        try:
            while not load.done():
                await asyncio.sleep(_READ_EVERY_SECONDS)
                if (reading := await _reading(one)) is not None:
                    readings.append(reading)
                elapsed = time.monotonic() - start
                enough = not judged or len(in_window(readings, start, work.transient_seconds)) >= _LEAST_READINGS
                if elapsed >= seconds and enough:
                    break
                if elapsed > seconds * _MOST_PROLONGED:
                    raise TargetSilentError(
                        f"the {one.side} app could be read only {len(readings)} times in {elapsed:.0f} s",
                        remedy="run this on a machine that is less busy",
                    )
        finally:
            until.set()
            report = await _finished(load)
        check_load(report, one.side, self._scenario, one.process.tail())
        after = await settled(one)
        return Round(start, work.mix.streams, report.streams, before, tuple(readings), after), report

    async def _capture(self, side: SideOutcome) -> None:
        one = self._subjects[side.side]
        until = asyncio.Event()
        load = asyncio.create_task(self._load(one, until, 120.0))
        try:
            await asyncio.sleep(self._scenario.workload.transient_seconds / 2)
            side.capture = await one.monitor.capture(_CAPTURE_SECONDS, until.set)
        finally:
            until.set()
            await _finished(load)

    async def _load(self, one: Subject, until: asyncio.Event, most_seconds: float) -> LoadReport:
        return await run_load(
            "127.0.0.1",
            one.port,
            self._scenario.request(self._outcome.seed),
            self._scenario.workload.mix,
            until=until,
            most_seconds=most_seconds,
            seed=self._outcome.seed,
        )


def check_load(report: LoadReport, side: str, scenario: Scenario, output: str) -> None:
    """Raise TargetError where the service did not do its work, so that its memory proves nothing.

    An upstream that never ends makes a stream that ends a failure too: a service that drops its clients has a flat memory.
    """
    failed = report.outcomes["failed"]
    why = dict(report.errors)
    if scenario.workload.upstream.events is None and report.outcomes["completed"]:
        failed += report.outcomes["completed"]
        why["ended_early"] = report.outcomes["completed"]
    if failed > _MOST_FAILED * report.streams:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(why.items()))
        raise TargetError(
            f"the {side} app failed {failed} of {report.streams} streams ({reasons}); its last output:\n{output}",
            code="target_answers_errors",
        )


async def settled(one: Subject) -> Reading:
    """Wait until the clients' sockets are gone and in-use bytes stand still, and return the last reading.

    Not for ever: what does not settle in time is counted as it is.
    """
    began = time.monotonic()
    last: Reading | None = None
    while True:
        await asyncio.sleep(_READ_EVERY_SECONDS)
        reading = await _reading(one)
        waited = time.monotonic() - began
        if reading is None:
            if waited > _MOST_SETTLE_SECONDS * _MOST_PROLONGED:
                raise TargetSilentError(f"the {one.side} app does not answer; its last output:\n{one.process.tail()}")
            continue
        still = last is not None and abs(reading.in_use_bytes - last.in_use_bytes) < _SETTLED_BYTES
        if waited >= _LEAST_SETTLE_SECONDS and still and connections(one.port) == 0:
            return reading
        if waited > _MOST_SETTLE_SECONDS:
            return reading
        last = reading


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


async def _together(steps: Sequence[Awaitable[None]]) -> None:
    """Wait for all; where one fails, end the others first, then raise its error as it is."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _next_look(looks: Sequence[int], number: int) -> int:
    return next(look for look in looks if look >= number)
