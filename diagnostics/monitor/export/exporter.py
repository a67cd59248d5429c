"""The two loops of the export: one reads each worker's live heap when it is due, one sends what waits.

A live heap is read from its table, so the service is not asked, and one that is blocked or stopped is pushed like any other.
What is made takes at most a hundredth of a core, however short the interval: the next time is put off for so long.

An attempt that may succeed later is repeated after 1 s, 2 s and so on up to 60 s, give or take a quarter, or when the receiver
says; by then a newer profile may have taken the place of the oldest. One that is refused is given up at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from ...analysis import heap
from ..failures import Failures
from ..recording import live_heap
from ..workers.targets import Targets, Worker
from .destination import Destination
from .otlp import Otlp
from .payload import Payload, Source, Wire
from .posting import Receiver
from .pyroscope import Pyroscope
from .telling import Telling
from .waiting import Waiting

__all__ = ["Exporter", "pause"]

log = logging.getLogger("diagnostics.monitor")

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_JITTER: Final = 0.25
# Making a profile that takes so long of a core is followed by so many times as long without one.
_REST: Final = 100.0
_LOOK_SECONDS: Final = 1.0
_HOST_CHARACTERS: Final = 64


class Exporter:
    """Pushes the live heaps of all workers; `run` until cancelled.

    Raises UsageError where the protocol's extra is missing, or SSL_CERT_FILE and SSL_CERT_DIR name no certificates.
    """

    def __init__(self, targets: Targets, destination: Destination) -> None:
        self._targets = targets
        self._destination = destination
        self._wire: Wire = Otlp() if destination.protocol == "otlp" else Pyroscope()
        self._receiver = Receiver(destination, self._wire.objection)
        self._waiting = Waiting()
        self._more = asyncio.Event()
        self._telling = Telling(destination.url)
        self._counts: dict[str, Counter[str]] = {}
        self._due: dict[int, float] = {}
        self._host = socket.gethostname()[:_HOST_CHARACTERS]
        self._none_told = False

    def counted(self, worker: str) -> Mapping[str, int]:
        """What became of a worker's profiles: sent, refused, dropped; and retried, the attempts that were to be repeated."""
        return self._counts.get(worker, {})

    async def run(self) -> None:
        """Make and send, for ever. What waits when this is cancelled is not sent."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._make(), name="profiles made")
                group.create_task(self._send(), name="profiles sent")
        finally:
            await self._receiver.close()

    async def _make(self) -> None:
        failures = Failures("a push of live heaps")
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._destination.seconds))
            try:
                workers = self._targets.workers()
                alive = {worker.pid for worker in workers}
                self._due = {pid: due for pid, due in self._due.items() if pid in alive}
                for worker in workers:
                    # The first push of a worker is an interval after it is there: of its start nothing is to be told yet.
                    due = self._due.setdefault(worker.pid, time.monotonic() + self._destination.seconds)
                    if time.monotonic() >= due:
                        took = await self._make_of(worker)
                        pause_seconds = max(self._destination.seconds, _REST * took)
                        self._due[worker.pid] = max(due + pause_seconds, time.monotonic())
            except Exception as error:  # noqa: BLE001  # whatever it is, it is logged, and the next push is due
                failures.failed(error)

    async def _make_of(self, worker: Worker) -> float:
        """The seconds of CPU that it took."""
        took, payload = await asyncio.to_thread(self._made, worker)
        if payload is None:
            self._tell_of_none(worker)
            return took
        gone = self._waiting.add(payload)
        for each in gone:
            self._count(each, "dropped")
        self._telling.lost(len(gone))
        self._more.set()
        return took

    def _made(self, worker: Worker) -> tuple[float, Payload | None]:
        """In a thread."""
        began = time.thread_time()
        table = live_heap.of_worker(worker)
        if table is None:
            return time.thread_time() - began, None
        profile = heap.in_use(table, now=time.time())
        source = Source(self._destination.name, self._host, worker.name, table.pid)
        payload = self._wire.payload(profile, source, self._destination.seconds)
        return time.thread_time() - began, payload

    def _tell_of_none(self, worker: Worker) -> None:
        if worker.socket is not None and not self._none_told:
            self._none_told = True
            log.warning(
                "worker %s keeps no live heap, so none of it is pushed: set DIAGNOSTICS_HEAP=on for the service; where it is "
                "set, `diagnostics status` says why not",
                worker.name,
            )

    async def _send(self) -> None:
        failures = Failures("sending a live heap")
        failed = 0
        while True:
            payload = self._waiting.oldest
            if payload is None:
                self._more.clear()
                await self._more.wait()
                continue
            after: float | None = None
            try:
                outcome = await self._receiver.post(payload)
                if outcome.kind == "again":
                    failed += 1
                    after = outcome.after
                    self._count(payload, "retried")
                    self._telling.failed(outcome.cause, outcome.why)
                else:
                    failed = 0
                    self._waiting.done(payload)
                    self._settled(payload, outcome.kind, outcome.cause, outcome.why)
            except Exception as error:  # noqa: BLE001  # a fault of ours: told with its traceback, and the next one is due
                failed += 1
                self._waiting.done(payload)
                self._count(payload, "dropped")
                failures.failed(error)
            if failed:
                chance = random.random()  # noqa: S311  # it keeps monitors apart, and no secret
                # However soon a receiver would be asked again, it is not asked without a pause.
                await asyncio.sleep(pause(failed, chance) if after is None else max(after, _FIRST_PAUSE))

    def _settled(self, payload: Payload, kind: str, cause: str, why: str) -> None:
        if kind == "taken":
            self._count(payload, "sent")
            self._telling.taken()
        else:
            self._count(payload, "refused")
            self._telling.failed(cause, why)
            self._telling.lost(1)

    def _count(self, payload: Payload, outcome: str) -> None:
        self._counts.setdefault(payload.worker, Counter())[outcome] += 1


def pause(failed: int, chance: float) -> float:
    """Seconds before the next attempt after so many that failed; `chance`, of 0 to 1, keeps many monitors apart."""
    usual = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failed - 1, 10))
    return usual * (1 - _JITTER + 2 * _JITTER * chance)
