"""Rounds are as long as it takes until the kernel's queues are full, and streams in them as many as tell a leak from noise."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from diagnostics.analysis.decision import Decision, Plan
from diagnostics.analysis.growth import Reading, Round
from diagnostics.proof.clients.address import RequestMessage
from diagnostics.proof.clients.load import LoadReport
from diagnostics.proof.clients.mix import Mix
from diagnostics.proof.experiment.comparison import AFTER, comparison
from diagnostics.proof.experiment.rounds import MemoryRounds
from diagnostics.proof.scenario import Scenario


def scenario(*, least: float = 4096) -> Scenario:
    return comparison(
        {AFTER: "new {port}"}, "/", RequestMessage(), streams=8, slow=0.5, slow_bytes_per_second=1024, seconds=4.0,
        transient_seconds=2.0, least_bytes=least, least_growth=32_768, plan=Plan(),
    )  # fmt: skip


class Queued(MemoryRounds):
    """Rounds of a service that fills the kernel's queues by so many bytes a second, up to 12 MB; nothing is started."""

    def __init__(self, known: Scenario, per_second: float) -> None:
        one: Any = SimpleNamespace(monitor=SimpleNamespace(unknown=""))
        super().__init__(known, {AFTER: one}, seed=7)
        self.per_second = per_second
        self.lengths: list[float] = []

    async def _round(self, side: str, mix: Mix, *, judged: bool) -> tuple[Round, LoadReport]:
        self.lengths.append(self._seconds(side))
        at_rest = Reading(0.0, 1000, 1000, 1, 3)
        readings = (
            replace(at_rest, time=t / 10, kernel_bytes=round(min(12e6, self.per_second * t / 10)))
            for t in range(1, round(self._seconds(side) * 10) + 1)
        )
        return Round(0.0, 8, 8, at_rest, tuple(readings), at_rest), LoadReport()


@pytest.mark.parametrize(
    ("per_second", "lengths"),
    [
        pytest.param(0.0, [4.0], id="no-queues"),
        pytest.param(1e7, [4.0], id="full-at-once"),
        pytest.param(1.5e6, [4.0, 8.0, 16.0], id="full-after-eight-seconds"),
        pytest.param(5e5, [4.0, 8.0, 16.0], id="never-full-and-not-for-ever"),
        pytest.param(1e5, [4.0], id="hardly-any"),
    ],
)
def test_a_round_is_prolonged_until_what_the_service_buffers_itself_has_begun(
    per_second: float, lengths: list[float]
) -> None:
    rounds = Queued(scenario(), per_second)
    asyncio.run(rounds.warm_up(AFTER))
    assert rounds.lengths == lengths
    # What is judged of it stays as long as it was.
    assert rounds._seconds(AFTER) - rounds._transient(AFTER) == 2.0


def test_the_smaller_what_matters_the_more_streams_end_in_a_round() -> None:
    assert [scenario(least=least).workload.least_ended for least in (64, 1024, 4096, 1e6)] == [1024, 64, 32, 32]


def test_what_explains_is_captured_while_the_streams_are_open_and_their_buffers_full() -> None:
    """The capture was taken after the streams had ended: the line named was the server's, of what was left by then."""
    seen: list[tuple[str, bool]] = []

    class Explained(Queued):
        async def _load(self, *arguments: Any, **more: Any) -> LoadReport:
            until = arguments[2]
            seen.append(("opened", until.is_set()))
            await until.wait()
            seen.append(("ended", True))
            return LoadReport()

    async def capture(seconds: float, over: Any) -> str:
        seen.append(("captured", len(seen) == 1))
        over()
        return "explained"

    async def main() -> None:
        rounds = Explained(replace(scenario(), workload=replace(scenario().workload, transient_seconds=0.02)), 0.0)
        one: Any = rounds._subjects[AFTER]
        one.monitor.outside, one.monitor.capture, one.thaw = False, capture, lambda: None
        assert await rounds.capture(AFTER, Decision.UNBOUNDED) == "explained"

    asyncio.run(main())
    assert seen == [("opened", False), ("captured", True), ("ended", True)]
