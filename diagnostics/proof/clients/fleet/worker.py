"""One process of a fleet: `python -m diagnostics.proof.clients.fleet.worker`, started by `launch`.

Its order is one line of JSON on standard input: {"order": ..., "part": k, "parts": n}. It takes the streams k, k + n, k + 2n
and so on. On standard output it writes lines of JSON: {"progress": [streams, ended, events, bytes, failed]} as it goes, at
the end {"tally": ..., "seconds": ..., "cpu_seconds": ..., "waited_seconds": ...}. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..kept import Kept
from ..stream import StreamTarget, run_stream
from ..tally import StreamOutcome, Tally
from .order import Order

__all__ = ["main"]

_PROGRESS_SECONDS = 0.25
# A service that fails at once must not turn its clients into a busy loop.
_AFTER_FAILURE_SECONDS = 0.02
_LATE_SECONDS = 0.01


class _Schedule:
    """Which stream is next, and when it was meant to begin (in the loop's time)."""

    def __init__(self, order: Order, part: int, parts: int) -> None:
        self._order = order
        self._numbers: Iterator[int] = itertools.count(part, parts)
        self._start = asyncio.get_running_loop().time()

    def next(self) -> tuple[int, float] | None:
        """Number and intended beginning; without a rate that is now. None when all have begun."""
        number = next(self._numbers)
        if self._order.streams is not None and number >= self._order.streams:
            return None
        if self._order.rate is None:
            return number, asyncio.get_running_loop().time()
        return number, self._start + number / self._order.rate


async def _client(order: Order, target: StreamTarget, schedule: _Schedule, tally: Tally) -> None:
    kept = Kept() if order.keep_alive else None
    try:
        await _streams(order, target, schedule, tally, kept)
    finally:
        if kept is not None:
            await kept.close()


async def _streams(order: Order, target: StreamTarget, schedule: _Schedule, tally: Tally, kept: Kept | None) -> None:
    loop = asyncio.get_running_loop()
    while (turn := schedule.next()) is not None:
        number, intended = turn
        if (early := intended - loop.time()) > 0:
            await asyncio.sleep(early)
        elif -early > _LATE_SECONDS:
            tally.asked_late += 1
        if await run_stream(target, order.behavior(number), tally, intended, kept) in (
            StreamOutcome.FAILED,
            StreamOutcome.REJECTED,
        ):
            await asyncio.sleep(_AFTER_FAILURE_SECONDS)


async def _drive(order: Order, part: int, parts: int) -> dict[str, Any]:
    tally = Tally()
    target = StreamTarget(
        order.address,
        order.message,
        verify_tls=order.verify_tls,
        patience_seconds=order.patience_seconds,
        keep_alive=order.keep_alive,
    )
    schedule = _Schedule(order, part, parts)
    began, cpu, waited = time.monotonic(), time.process_time(), _waited_seconds()
    share = order.connections // parts + (part < order.connections % parts)
    clients = [asyncio.create_task(_client(order, target, schedule, tally)) for _ in range(share)]
    telling = asyncio.create_task(_tell(tally))
    try:
        if clients:
            await asyncio.wait(clients, timeout=order.seconds)
    finally:
        for task in (telling, *clients):
            task.cancel()
        results = await asyncio.gather(telling, *clients, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    # To `diagnostics load` being turned away is a failure like others, with its status as the error.
    tally.outcomes += Counter({StreamOutcome.FAILED: tally.outcomes.pop(StreamOutcome.REJECTED, 0)})
    return {
        "tally": tally.to_json(),
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
        "waited_seconds": _waited_seconds() - waited,
    }


async def _tell(tally: Tally) -> None:
    while True:
        failed = tally.outcomes[StreamOutcome.FAILED] + tally.outcomes[StreamOutcome.REJECTED]
        _write({"progress": [tally.streams, tally.ended, tally.events, tally.bytes, failed]})
        await asyncio.sleep(_PROGRESS_SECONDS)


async def _unless_stdin_ends(order: Order, part: int, parts: int) -> dict[str, Any]:
    work = asyncio.create_task(_drive(order, part, parts))
    # Whoever started this process is gone: nobody reads what it finds.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: os.read(0, 1024) or work.cancel())
    return await work


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ModuleNotFoundError:  # slower, and as right
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _waited_seconds() -> float:
    """Seconds this process was ready to run and had no core: the second number of schedstat, proc(5); 0 where there is none."""
    try:
        return int(Path("/proc/self/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _write(message: dict[str, Any]) -> None:
    print(json.dumps(message, separators=(",", ":")), flush=True)


def main() -> int:
    job = json.loads(sys.stdin.buffer.readline())
    order = Order.from_json(job["order"])
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            _write(runner.run(_unless_stdin_ends(order, job["part"], job["parts"])))
        except asyncio.CancelledError:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
