"""One experiment: the same work for a broken and a fixed service, round by round, until the rule can decide.

    start the upstream and the subjects, each in a process of its own
    warm up: one round each, thrown away (imports, caches, connection pools, pages that are touched for the first time)
    rounds: broken and fixed have theirs at the same time, so that whatever the machine does meets both alike
    look where the plan says so, decide
    captures: after the last reading, because a tracer would change the figures. They explain the decision; a failed capture is
    reported and does not change it

Nothing here judges: figures come from `analysis.growth`, decisions from `analysis.decision`, rounds from `rounds` and `exits`.
A subject that dies, never listens or answers errors is a TargetError with its last output, never a verdict.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...analysis.decision import Decision, Judgement, Measure, decide
from ...analysis.growth import Round
from ...errors import DiagnosticsError, TargetError
from ..clients.load import LoadReport
from ..scenario import RELAY, Scenario
from ..subjects.monitor_client import LoadCapture
from ..subjects.otlp import receiver
from ..subjects.publisher import publishing
from ..subjects.subject import Collects, Launch, serve_command, subject, upstream
from .exits import ExitRounds
from .rounds import MemoryRounds, Rounds, together

__all__ = ["RESIDENT_ROOM_BYTES", "Bench", "Outcome", "SideOutcome", "Watch", "least_of", "run", "with_upstream"]

# Resident bytes that a round may gain without growth of the service: services whose in-use memory did not grow gained and
# lost 1 MiB from round to round (glibc, eight streams with megabytes in their buffers), and more with an allocator that
# returns pages by a timer.
RESIDENT_ROOM_BYTES = 4 * 2**20


class Watch(Protocol):
    """Receives the progress of an experiment."""

    def doing(self, what: str, step: int, steps: int) -> None: ...

    def measured(self, side: str, number: int, figures: Mapping[Measure, float], peak: float | None) -> None: ...


# A context manager that starts the subjects of a scenario, yields its rounds, and ends everything.
Bench = Callable[[Scenario, Sequence[str], int], AbstractAsyncContextManager[Rounds]]


@dataclass
class SideOutcome:
    """The result for one subject: `figures` have one value a round, in the unit of their measure.

    read          "in_use", or "rss" where in-use bytes are unknown; `why` then says why
    balances      resident memory by its parts, after the warm-up and after the last round, where a capture was taken
    unexplained   why there is no capture although one was wanted; unweighed: why the balances are incomplete
    """

    side: str
    app: str
    expected: Decision
    rounds: list[Round] = field(default_factory=list)
    loads: list[LoadReport] = field(default_factory=list)
    figures: dict[Measure, list[float]] = field(default_factory=lambda: {measure: [] for measure in Measure})
    peaks: list[float] = field(default_factory=list)
    read: str = "in_use"
    why: str = ""
    finding: Judgement | None = None
    capture: LoadCapture | None = None
    unexplained: str = ""
    unweighed: str = ""
    balances: list[Mapping[str, int]] = field(default_factory=list)

    @property
    def decision(self) -> Decision:
        return Decision.INCONCLUSIVE if self.finding is None else self.finding.decision

    @property
    def verified(self) -> bool:
        """Whether the decision is the one that the scenario's claim predicts."""
        return self.decision is self.expected


@dataclass
class Outcome:
    """The experiment's result. `began`: wall-clock time; `seconds`: its duration."""

    scenario: Scenario
    seed: int
    sides: list[SideOutcome]
    began: float
    seconds: float = 0.0

    @property
    def verified(self) -> bool:
        return all(side.verified for side in self.sides)


async def run(
    scenario: Scenario,
    sides: Sequence[str],
    *,
    seed: int,
    capture: bool,
    watch: Watch,
    bench: Bench | None = None,
    explain: Callable[[SideOutcome], bool] = lambda side: True,
) -> Outcome:
    """Run `scenario` for `sides` ("broken", "fixed") and return the result. `bench` starts the subjects.

    With `capture` the memory of those sides for which `explain` is True is captured after the last round.
    Raises TargetError where a subject, the upstream or a monitor fails. Every process has ended when this returns or raises.
    """
    outcome = Outcome(
        scenario, seed, [SideOutcome(side, scenario.apps[side], scenario.expected[side]) for side in sides], time.time()
    )
    began = time.monotonic()
    watch.doing("starting the upstream and the apps", 0, 1)
    async with (bench or with_upstream)(scenario, sides, seed) as rounds:
        await _Experiment(outcome, rounds, watch, explain).run(capture=capture)
    outcome.seconds = time.monotonic() - began
    return outcome


@asynccontextmanager
async def with_upstream(scenario: Scenario, sides: Sequence[str], seed: int) -> AsyncGenerator[Rounds, None]:
    """The bench of a scenario: the upstream, and those subjects that live through all rounds."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proof-")))
        base_url = await stack.enter_async_context(upstream(folder))
        traces = await stack.enter_async_context(receiver()) if RELAY in sides and _exports(scenario) else None
        launches = {side: _launch(scenario, side, base_url, "" if traces is None else traces.url) for side in sides}
        if scenario.judges_exit:
            yield ExitRounds(scenario, launches, folder, seed)
            return
        subjects = {
            side: await stack.enter_async_context(subject(side, launch, folder=folder))
            for side, launch in launches.items()
        }
        await together([each.ready() for each in subjects.values()])
        if RELAY in subjects and scenario.relay is not None and scenario.relay.publish:
            url = f"http://127.0.0.1:{subjects[RELAY].port}{scenario.relay.publish}"
            await stack.enter_async_context(publishing(url, scenario.workload.upstream))
            subjects[RELAY].beside = 1
        yield MemoryRounds(scenario, subjects, seed)
        if traces is not None and not traces.exports:
            raise TargetError(
                "the relay app exported no traces, so that its memory says nothing about them;"
                f" its last output:\n{subjects[RELAY].process.tail()}",
                code="target_serves_nothing",
            )


def _exports(scenario: Scenario) -> bool:
    return scenario.relay is not None and any("{otlp}" in value for value in scenario.relay.environment.values())


def _launch(scenario: Scenario, side: str, base_url: str, traces_url: str) -> Launch:
    environment = {"UPSTREAM_BASE_URL": base_url, **scenario.environment}
    if side == RELAY and scenario.relay is not None:
        relay = scenario.relay
        own = {
            name: value.replace("{upstream}", base_url).replace("{otlp}", traces_url)
            for name, value in relay.environment.items()
        }
        command = [word.replace("{upstream}", base_url) for word in relay.command]
        return Launch(command, {**environment, **own}, Collects.AGENT)
    options = scenario.options.get(side, ())
    return Launch(serve_command(scenario.apps[side], scenario.workload.send_buffer_bytes, *options), environment)


class _Experiment:
    """The steps of the experiment in their order."""

    def __init__(self, outcome: Outcome, rounds: Rounds, watch: Watch, explain: Callable[[SideOutcome], bool]) -> None:
        self._explain = explain
        self._outcome = outcome
        self._scenario = outcome.scenario
        self._rounds = rounds
        self._watch = watch

    async def run(self, *, capture: bool) -> None:
        sides = self._outcome.sides
        plan = self._scenario.plan
        # Steps to the first look: where that is inconclusive the progress bar jumps back once.
        steps = plan.looks[0] + 1 + capture
        step = 1
        self._watch.doing(f"warming up {_names(sides)}", 0, steps)
        await together([self._rounds.warm_up(side.side) for side in sides])
        if capture:
            await self._weigh()
        for number in range(1, plan.most_rounds + 1):
            open_sides = [side for side in sides if side.finding is None]
            steps = max(steps, step + 1 + capture)
            self._watch.doing(f"round {number} of {_next_look(plan.looks, number)}, {_names(open_sides)}", step, steps)
            await together([self._measure(side, number) for side in open_sides])
            step += 1
            if number in plan.looks:
                self._decide(open_sides, number)
            if all(side.finding is not None for side in sides):
                break
        if capture:
            await self._weigh()
            self._watch.doing("capturing what is held, with memray", step, steps)
            await together([self._capture(side) for side in sides if self._explain(side)])
            step += 1
        self._watch.doing("done", step, step)

    async def _measure(self, side: SideOutcome, number: int) -> None:
        measured = await self._rounds.measure(side.side)
        side.loads.append(measured.load)
        side.read, side.why = measured.read, measured.why
        if measured.round is not None:
            side.rounds.append(measured.round)
        if measured.peak is not None:
            side.peaks.append(measured.peak)
        for measure, value in measured.figures.items():
            side.figures[measure].append(value)
        self._watch.measured(side.side, number, measured.figures, measured.peak)

    def _decide(self, sides: Sequence[SideOutcome], number: int) -> None:
        """Decide on each side at this look; an undecided side gets more streams in its further rounds."""
        for side in sides:
            finding = decide(side.figures, least_of(self._scenario, side), self._scenario.plan)
            if finding.decision is not Decision.INCONCLUSIVE or number == self._scenario.plan.most_rounds:
                side.finding = finding
            else:
                self._rounds.widen(side.side)

    async def _weigh(self) -> None:
        for side in self._outcome.sides:
            try:
                side.balances.append(await self._rounds.balance(side.side))
            except DiagnosticsError as error:
                side.unweighed = error.message

    async def _capture(self, side: SideOutcome) -> None:
        try:
            side.capture = await self._rounds.capture(side.side, side.decision)
        except DiagnosticsError as error:
            side.unexplained = error.message


def least_of(scenario: Scenario, side: SideOutcome) -> dict[Measure, float]:
    """The least growth that matters, for each measure of a side that is judged.

    Resident memory is always judged, with a wider bound: whole pages and an allocator's free memory are no growth of the
    service, but memory that no allocator counts is in RSS only. Where in-use bytes are unknown it replaces them.
    """
    least = dict(scenario.least)
    if scenario.judges_exit:
        return least
    ended = sum(each.ended_streams for each in side.rounds) / len(side.rounds)
    least[Measure.RESIDENT] = least.get(Measure.REMAINS, 0.0) + RESIDENT_ROOM_BYTES / max(1.0, ended)
    if side.read == "rss":
        least.pop(Measure.REMAINS, None)
    return least


def _names(sides: Sequence[SideOutcome]) -> str:
    names = " and ".join(side.side for side in sides)
    return f"the {names} app{'s' if len(sides) > 1 else ''}"


def _next_look(looks: Sequence[int], number: int) -> int:
    return next(look for look in looks if look >= number)
