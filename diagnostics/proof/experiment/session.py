"""Experiments in a terminal: a progress bar for each, and an orderly end on Ctrl-C and SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Mapping, Sequence
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ...analysis.decision import Measure
from ...errors import TargetError
from ..scenario import Scenario
from .experiment import Bench, Outcome, run
from .rounds import together

__all__ = ["Terminal", "run_scenario", "run_scenarios", "until_done"]

T = TypeVar("T")


class Terminal:
    """Shows the progress of experiments; with `show_rounds` also each round's figures."""

    def __init__(self, console: Console, *, show_rounds: bool = False) -> None:
        self._console = console
        self._show_rounds = show_rounds
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def experiment(self, name: str) -> _Shown:
        """A `Watch` that shows the experiment of this name."""
        return _Shown(name, self._console, self._bars, show_rounds=self._show_rounds)


class _Shown:
    """One experiment's bar."""

    def __init__(self, name: str, console: Console, bars: Progress, *, show_rounds: bool) -> None:
        self._console = console
        self._name = name
        self._show_rounds = show_rounds
        self._bars = bars
        self._task = bars.add_task(name)

    def doing(self, what: str, step: int, steps: int) -> None:
        self._bars.update(self._task, description=f"{self._name}: {what}", completed=step, total=steps)
        if not self._console.is_terminal:
            # A log has no bar: print the steps.
            self._console.print(f"{self._name}: {what}", highlight=False)

    def measured(self, side: str, number: int, figures: Mapping[Measure, float], peak: float | None) -> None:
        if self._show_rounds:
            parts = [
                f"{measure} {value:.2f} {measure.unit}"
                if measure is Measure.EXIT
                else f"{measure} {value:+,.0f} {measure.unit}"
                for measure, value in figures.items()
            ]
            if peak is not None:
                parts.append(f"peak {peak / 1024:,.0f} KiB per stream")
            self._console.print(f"{side}, round {number}:   {'   '.join(parts)}", highlight=False)

    def over(self) -> None:
        self._bars.remove_task(self._task)


def run_scenario(
    scenario: Scenario,
    sides: Sequence[str],
    *,
    seed: int,
    capture: bool,
    show_rounds: bool = False,
    bench: Bench | None = None,
) -> Outcome:
    """Run one experiment to its end. Raises as `experiment.run` does; KeyboardInterrupt on Ctrl-C or SIGTERM."""
    with Terminal(Console(stderr=True), show_rounds=show_rounds) as terminal:
        watch = terminal.experiment(scenario.name)
        return until_done(run(scenario, sides, seed=seed, capture=capture, watch=watch, bench=bench))


def run_scenarios(
    wanted: Sequence[tuple[Scenario, Sequence[str]]], *, seed: int, capture: bool, jobs: int
) -> list[Outcome | TargetError]:
    """Run the experiments, `jobs` of them at a time; returns each one's outcome or error, in their order.

    Each has its own upstream, apps and monitors.
    """
    with Terminal(Console(stderr=True)) as terminal:
        return until_done(_all(wanted, terminal, seed=seed, capture=capture, jobs=jobs))


async def _all(
    wanted: Sequence[tuple[Scenario, Sequence[str]]], terminal: Terminal, *, seed: int, capture: bool, jobs: int
) -> list[Outcome | TargetError]:
    places = asyncio.Semaphore(jobs)

    async def one(scenario: Scenario, sides: Sequence[str]) -> Outcome | TargetError:
        async with places:
            watch = terminal.experiment(scenario.name)
            try:
                return await run(scenario, sides, seed=seed, capture=capture, watch=watch)
            except TargetError as error:
                return error
            finally:
                watch.over()

    return await together([one(scenario, sides) for scenario, sides in wanted])


def until_done(work: Coroutine[object, object, T]) -> T:
    """`asyncio.run` that treats SIGTERM like Ctrl-C.

    The work is cancelled, its processes are ended, and KeyboardInterrupt is raised.
    """

    async def guarded() -> T:
        task = asyncio.ensure_future(work)
        terminated = False

        def stop() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            if terminated:
                raise KeyboardInterrupt from None
            raise

    return asyncio.run(guarded())
