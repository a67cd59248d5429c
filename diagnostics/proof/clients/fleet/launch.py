"""Starts the processes of a fleet, passes on how far they are, and adds up what they measured."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ....errors import DiagnosticsError
from ..tally import Tally
from .order import Order

__all__ = ["FleetResult", "Progress", "Share", "launch"]

# The result is one line, with a distribution of gaps in it.
_LINE_BYTES = 16 * 1024 * 1024
_GRACE_SECONDS = 5.0
# A client that needs more than this of a core, or wants it and does not get it, measures itself.
_MOST_BUSY = 0.85


class Progress(NamedTuple):
    """How far the fleet is: counts over all processes."""

    streams: int
    ended: int
    events: int
    bytes: int
    failed: int


@dataclass(frozen=True, slots=True)
class Share:
    """One process: `cpu` is its share of a core, `waited` the share of time in which it wanted a core and had none."""

    cpu: float
    waited: float

    @property
    def limiting(self) -> bool:
        return self.cpu + self.waited > _MOST_BUSY


@dataclass(frozen=True)
class FleetResult:
    """What the fleet measured in `seconds`."""

    order: Order
    tally: Tally
    seconds: float
    shares: tuple[Share, ...]

    @property
    def client_limited(self) -> bool:
        """Whether a process of the fleet was itself the limit, so that the figures are about it and not about the service.

        Where nothing came at all, it was not.
        """
        return self.tally.events > 0 and any(share.limiting for share in self.shares)

    @property
    def events_per_second(self) -> float:
        return self.tally.events / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.tally.bytes / self.seconds if self.seconds else 0.0


async def launch(order: Order, processes: int, progress: Callable[[Progress], None]) -> FleetResult:
    """Run `order` with so many processes. All of them are gone when this returns or raises.

    Raises TargetError where the host's name is not known.
    """
    order.address.resolve()  # an unknown host is reported once, and not by each process
    latest = [Progress(0, 0, 0, 0, 0)] * processes

    def pass_on(part: int, counts: Progress) -> None:
        latest[part] = counts
        progress(Progress(*(sum(column) for column in zip(*latest, strict=True))))

    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(_part(order, part, processes, pass_on)) for part in range(processes)]
    answers = [part.result() for part in parts]
    return FleetResult(
        order,
        Tally.merged(Tally.from_json(answer["tally"]) for answer in answers),
        max(answer["seconds"] for answer in answers),
        tuple(
            Share(answer["cpu_seconds"] / answer["seconds"], answer["waited_seconds"] / answer["seconds"])
            for answer in answers
        ),
    )


async def _part(order: Order, part: int, parts: int, pass_on: Callable[[int, Progress], None]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "diagnostics.proof.clients.fleet.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        # A Ctrl-C is for the one that started it, which ends it.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answer = None
    try:
        process.stdin.write(json.dumps({"order": order.to_json(), "part": part, "parts": parts}).encode() + b"\n")
        async for line in process.stdout:
            message = json.loads(line)
            if "progress" in message:
                pass_on(part, Progress(*message["progress"]))
            else:
                answer = message
        await process.wait()
    finally:
        process.stdin.close()
        if process.returncode is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
        if process.returncode is None:
            process.kill()
            await process.wait()
    if answer is None:
        raise DiagnosticsError(
            f"process {part} of the fleet ended with exit code {process.returncode}; its error is above", code="fleet"
        )
    return dict(answer)
