"""Puts a mix of clients on a service, over real sockets in this process, and counts what they saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from .address import Address, Request
from .mix import Behavior, Mix
from .stream import StreamTarget, run_stream
from .tally import StreamOutcome, Tally

__all__ = ["LoadReport", "run_load"]


@dataclass
class LoadReport(Tally):
    """What the clients of a load saw in `seconds`.

    longest    seconds of the longest stream that was not cut off by the end of the load; 0 where there was none
    """

    seconds: float = 0.0
    longest: float = 0.0

    def add(self, other: Self) -> None:
        """Count in what the clients of another load on the same service saw."""
        super().add(other)
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)

    def to_json(self) -> dict[str, Any]:
        """What the report of an experiment shows: clients are its means, and their latencies beside the point."""
        shown = ("streams", "events", "bytes", "outcomes", "errors")
        whole = super().to_json()
        return {"seconds": self.seconds, **{name: whole[name] for name in shown}}


async def run_load(
    host: str,
    port: int,
    request: Request,
    mix: Mix,
    *,
    until: asyncio.Event,
    most_seconds: float,
    finish: Callable[[float], float] = lambda longest: 0.0,
    seed: int = 0,
    report: LoadReport | None = None,
) -> LoadReport:
    """Put `mix` on the service until `until` is set, all streams have ended, or `most_seconds` are over.

    From then on no client opens another stream, and those that are open have so many seconds to end as `finish` gives for the
    longest stream that has ended (0: none has): a stream that is cut off may not leave behind what a whole one does. Clients
    whose stream is still open after that close their sockets. What fails is counted in the report and raises nothing: to judge
    it is the caller's business. `seed` fixes when each client comes. A given `report` is filled meanwhile, and returned.
    """
    report = LoadReport() if report is None else report
    target = StreamTarget(Address("http", host, port, request.path), request.message)
    start = time.monotonic()
    over = asyncio.Event()
    arrivals = random.Random(seed)  # noqa: S311 -- arrival times, no secrets
    clients = [
        asyncio.create_task(
            _client(target, behavior, arrivals.uniform(0, mix.arrival_seconds), over if mix.again else None, report)
        )
        for behavior in mix.each()
    ]
    everyone = asyncio.create_task(asyncio.wait(clients))
    stopped = asyncio.create_task(until.wait())
    either: tuple[asyncio.Task[Any], ...] = (everyone, stopped)
    try:
        await asyncio.wait(either, timeout=most_seconds, return_when=asyncio.FIRST_COMPLETED)
        over.set()
        if (patience := finish(report.longest)) > 0:
            await asyncio.wait((everyone,), timeout=patience)
    finally:
        for task in (*either, *clients):
            task.cancel()
        results = await asyncio.gather(*either, *clients, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    report.seconds = time.monotonic() - start
    return report


async def _client(
    target: StreamTarget, behavior: Behavior, delay: float, over: asyncio.Event | None, report: LoadReport
) -> None:
    """One stream, or one after the other until `over` is set."""
    await asyncio.sleep(delay)
    while True:
        began = time.monotonic()
        outcome = await run_stream(target, behavior, report)
        if outcome in (StreamOutcome.COMPLETED, StreamOutcome.LEFT):
            report.longest = max(report.longest, time.monotonic() - began)
        # A service that fails at once must not turn its clients into a busy loop.
        if over is None or await _set_within(over, 0.01):
            return


async def _set_within(over: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()
    return over.is_set()
