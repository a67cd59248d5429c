"""The same experiment for anyone's service: two commands, one request, one decision for each.

The rounds, the rule and the captures are those of `verify`. What differs: nothing is known of the upstream, so growth is told
in bytes per second of an open stream and not per chunk; the service's sockets are left as they are, and its agent collects
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
from ..clients.address import Message, Request
from ..clients.mix import Behavior, Fast, Mix, Slow
from ..scenario import Scenario, Upstream, Workload
from ..subjects.command import command_of
from ..subjects.monitor_client import Capture
from ..subjects.subject import START_SECONDS, Collects, Launch, Subject, subject
from .experiment import Bench
from .rounds import CAPTURE_SECONDS, MemoryRounds, Rounds, together

__all__ = ["AFTER", "BEFORE", "UNITS", "Comparison", "comparison", "on_commands"]

BEFORE = "before"
AFTER = "after"
UNITS = {Measure.GROWTH: "B/s of a stream", Measure.REMAINS: "B/stream", Measure.RESIDENT: "B/stream"}
# In a capture of what ended streams leave each lives so long: several in a window, and each long enough to be served.
_STREAM_SECONDS = 0.7
# What a Python service at rest gains and loses in a round by itself: so many streams have to end in one that this is less, for
# each of them, than what matters; and never fewer than these, for the sake of resident memory, which comes and goes by more.
_NOISE_BYTES = 64 * 1024
_LEAST_ENDED = 32


@dataclass(frozen=True)
class Comparison(Scenario):
    """A scenario whose `apps` are commands with `{port}` in them, and whose clients all send `message`."""

    message: Message = field(default_factory=Message)

    def request(self, seed: int, side: str = "") -> Request:
        """What each client sends; the same for every seed and side."""
        return Request(self.path, self.message)


def comparison(
    commands: Mapping[str, str],
    path: str,
    message: Message,
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
    """What is to be run. `least_bytes` counts for each ended stream, `least_growth` for each second of an open one.

    `slow` is the share of clients that read `slow_bytes_per_second`; the others read what comes, and ask again when it ends.
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

    `collects`: the commands are those of `proof.serve`, which collect garbage before they are read.
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
    async def capture(self, side: str, decision: Decision) -> Capture | None:
        """Of what ended streams leave, take a capture in which streams begin and end: it would not be seen of older ones.

        Streams that end by themselves do so. Of what open streams gain, take one with streams that stay open: their buffers are
        full at its end.
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
