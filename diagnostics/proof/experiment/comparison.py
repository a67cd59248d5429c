"""The same experiment for the user's own service: two commands, one request, a decision for each.

The rounds, the rule and the captures are those of `verify`. Two things differ: the upstream is unknown, so growth is in bytes
per second of an open stream and not per chunk; and the service's sockets keep their buffer sizes, while its agent collects
garbage before memory is read at rest.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...analysis.decision import Decision, Measure, Plan
from ...errors import UsageError
from ..clients.address import Request, RequestMessage
from ..clients.mix import Behavior, Fast, Mix, Slow
from ..scenario import Scenario, Upstream, Workload
from ..subjects.command import command_of
from ..subjects.monitor_client import LoadCapture
from ..subjects.subject import START_SECONDS, Collects, Launch, Subject, subject
from .experiment import Bench
from .rounds import CAPTURE_SECONDS, MemoryRounds, Rounds, together

__all__ = ["AFTER", "BEFORE", "UNITS", "Comparison", "comparison", "on_commands"]

BEFORE = "before"
AFTER = "after"
UNITS = {Measure.GROWTH: "B/s of a stream", Measure.REMAINS: "B/stream", Measure.RESIDENT: "B/stream"}
# Lifetime of streams during a capture of memory left by ended streams: several in a window, each long enough to be served.
_STREAM_SECONDS = 0.7
# Bytes that a Python service at rest gains and loses in a round by itself: so many streams have to end in a round that this,
# divided by them, is below the least growth; and at least `_LEAST_ENDED`, because resident memory varies by more.
_NOISE_BYTES = 64 * 1024
_LEAST_ENDED = 32


@dataclass(frozen=True)
class Comparison(Scenario):
    """A scenario whose `apps` are commands that contain `{port}`, and whose clients all send `message`."""

    message: RequestMessage = field(default_factory=RequestMessage)

    def request(self, seed: int, side: str = "") -> Request:
        """The request of each client; the same for every seed and side."""
        return Request(self.path, self.message)


def comparison(
    commands: Mapping[str, str],
    path: str,
    message: RequestMessage,
    *,
    streams: int,
    slow: float,
    slow_bytes_per_second: int,
    seconds: float,
    transient_seconds: float,
    least_bytes: float,
    least_growth: float,
    plan: Plan,
) -> Comparison:
    """The comparison to run. `least_bytes`: per ended stream; `least_growth`: bytes per second of an open one.

    `slow`: the share of clients that read `slow_bytes_per_second`; the others read at full speed. All repeat their request
    when a stream ends.
    """
    if transient_seconds >= seconds:
        raise UsageError(
            f"the transient of {transient_seconds:g} s leaves nothing of a round of {seconds:g} s",
            remedy="make --seconds longer or --transient shorter",
        )
    slow_clients = round(streams * slow)
    clients: list[tuple[Behavior, int]] = [
        (Slow(bytes_per_second=slow_bytes_per_second), slow_clients),
        (Fast(), streams - slow_clients),
    ]
    return Comparison(
        name="compare",
        claim=f"{commands[AFTER]} is bounded under {streams} streams." if AFTER in commands else "",
        apps=dict(commands),
        expected=dict.fromkeys(commands, Decision.BOUNDED),
        workload=Workload(
            # One "chunk" a second: growth is then in bytes per second. `events=0`: a stream may end by itself.
            upstream=Upstream(chunk_bytes=0, chunks_per_second=1, events=0),
            mix=Mix(tuple(pair for pair in clients if pair[1]), again=True),
            seconds=seconds,
            transient_seconds=transient_seconds,
            send_buffer_bytes=0,
            least_ended=max(streams, _LEAST_ENDED, math.ceil(_NOISE_BYTES / least_bytes)),
        ),
        least={Measure.GROWTH: least_growth, Measure.REMAINS: least_bytes},
        source=str(Path.cwd()),
        plan=plan,
        path=path,
        message=message,
    )


def on_commands(start_seconds: float = START_SECONDS, *, collects: bool = False) -> Bench:
    """The bench of a comparison: each command under `diagnostics run`, in the folder and environment of this process.

    `collects`: the commands are those of `proof.subjects.serve`, which collect garbage on a signal.
    """

    @asynccontextmanager
    async def bench(scenario: Scenario, sides: Sequence[str], seed: int) -> AsyncGenerator[Rounds, None]:
        how = Collects.SIGNAL if collects else Collects.AGENT
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
            subjects = {
                side: await stack.enter_async_context(
                    subject(
                        side,
                        Launch(command_of(scenario.apps[side], f"--{side}"), scenario.environment, how),
                        folder=folder,
                        start_seconds=start_seconds,
                    )
                )
                for side in sides
            }
            await together([each.ready() for each in subjects.values()])
            yield _Rounds(scenario, subjects, seed)

    return bench


class _Rounds(MemoryRounds):
    async def capture(self, side: str, decision: Decision) -> LoadCapture | None:
        """Where memory of ended streams was accused, capture while streams begin and end: the window does not show older ones.

        Streams that end by themselves do so. Where growth of open streams was accused, capture with streams that stay open:
        their buffers are full at its end.
        """
        one = self._subjects[side]
        if decision is not Decision.LEAK or self._ends[side] or one.monitor.outside:
            return await super().capture(side, decision)
        one.thaw()
        over = asyncio.Event()
        coming = asyncio.create_task(self._coming_and_going(one, over))
        try:
            return await one.monitor.capture(CAPTURE_SECONDS, over.set)
        finally:
            over.set()
            await coming

    async def _coming_and_going(self, one: Subject, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._load(one, self._scenario.workload.mix, over, _STREAM_SECONDS)
