"""Rounds that end with the process: how long does a service live after SIGTERM while streams are open?

Each round starts the app anew, opens the streams, sends SIGTERM once the clients have received something, and waits until the
process has ended, at most for the patience: the figure of an app that still runs then is the patience, a lower bound of the
truth. The app runs without a monitor beside it, whose own end would be counted.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ...analysis.decision import Decision, Measure
from ..clients.load import LoadReport, run_load
from ..scenario import Scenario
from ..subjects.processes import Process, free_port, start, wait_for_listener
from ..subjects.subject import Launch
from .rounds import Measured
from .served import check_load

__all__ = ["ExitRounds"]

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_MOST_SECONDS = 120.0
# The patience is this multiple of the least exit time that matters: the process need not be waited for any longer.
_PATIENCE = 1.25


class ExitRounds:
    """Rounds that start each side's service anew."""

    def __init__(
        self,
        scenario: Scenario,
        launches: Mapping[str, Launch],
        folder: Path,
        seed: int,
    ) -> None:
        self._scenario = scenario
        self._launches = launches
        self._folder = folder
        self._seed = seed

    async def warm_up(self, side: str) -> None:
        """Does nothing: every round is a cold start."""

    def widen(self, side: str) -> None:
        """Does nothing: more streams do not make the exit time more precise."""

    async def capture(self, side: str, decision: Decision) -> None:
        """Returns None: exits have no memory to capture."""

    async def balance(self, side: str) -> Mapping[str, int]:
        """Returns nothing, for the same reason."""
        return {}

    async def measure(self, side: str) -> Measured:
        """Run one round. Raises TargetError where the app does not start or serves nothing."""
        port, launch = free_port(), self._launches[side]
        output = self._folder / f"{side}.log"
        async with start(f"{side} app", launch.words(port), output=output, environment=launch.environment) as process:
            await wait_for_listener(process, port, _START_SECONDS)
            report = LoadReport()
            until = asyncio.Event()
            load = asyncio.create_task(self._load(side, port, until, report))
            try:
                await self._served(process, report)
                process.signal(signal.SIGTERM)
                signaled_at = time.monotonic()
                patience = self._scenario.least[Measure.EXIT] * _PATIENCE
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await process.ended()
                # At most the patience: this process may wake up late from the wait.
                seconds = min(time.monotonic() - signaled_at, patience)
            finally:
                until.set()
                await load
        check_load(report, side, self._scenario, process.tail(), open_streams=self._scenario.workload.mix.streams)
        return Measured({Measure.EXIT: seconds}, report)

    async def _served(self, process: Process, report: LoadReport) -> None:
        """Wait until every client has received something, or has had the time for it."""
        work = self._scenario.workload
        deadline = time.monotonic() + _START_SECONDS
        began = time.monotonic()
        while time.monotonic() < began + work.seconds or report.events < work.least_events * work.mix.streams:
            process.check()
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_POLL_SECONDS)

    async def _load(self, side: str, port: int, until: asyncio.Event, report: LoadReport) -> None:
        await run_load(
            "127.0.0.1",
            port,
            self._scenario.request(self._seed, side),
            self._scenario.workload.mix,
            until=until,
            most_seconds=_MOST_SECONDS,
            seed=self._seed,
            report=report,
        )
