"""The verdict's own readings: where growth is an alarm and its culprit is not known yet, the captures that would name it are
taken without being asked for, so that the first `status` that somebody types already tells.

Only forked readings are taken, tasks and objects: no tracer is opened, and nothing slows the service down but the fork.
They are priced like every capture, one that is refused as too costly is not forced, and one that runs makes way for what
somebody asks for. `DIAGNOSTICS_LOOKS_PER_HOUR` bounds how often they are taken of one worker (6 by default: what a capture
shows is believed for ten minutes); 0 takes none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, Final

from ...analysis.verdict.verdict import Verdict
from ...errors import DiagnosticsError, NotFoundError
from ..audit import Asker, Audit
from ..captures.controller import Captures
from ..failures import Failures
from ..workers.targets import Snapshot, Targets
from .judge import CAPTURE_SECONDS, Judge

__all__ = ["OwnCaptures"]

log = logging.getLogger("diagnostics.monitor")

_EVERY_SECONDS = 5.0
_HOUR = 3600.0
# A capture that was refused is not asked for again at once: what it would cost changes slowly.
_REFUSED_SECONDS = 120.0

# What names the culprit of an alarm. Two looks at the objects, so far apart that a slow growth is more than their noise.
_TASKS: Final[dict[str, Any]] = {"kind": "tasks"}
_OBJECTS: Final[dict[str, Any]] = {"kind": "objects", "seconds": 20}
_NAMED_BY: Final[dict[str, dict[str, Any]]] = {
    "orphan_tasks": _TASKS,
    "thread_growth": _TASKS,
    "retained_objects": _OBJECTS,
    "native_growth": _OBJECTS,
    "memory_growth": _OBJECTS,
    "recycled_growth": _OBJECTS,
    "inconclusive": _OBJECTS,
}


class OwnCaptures:
    """Takes them for all workers; `run` until cancelled."""

    def __init__(self, targets: Targets, judge: Judge, captures: Captures, audit: Audit, an_hour: int) -> None:
        self._targets = targets
        self._judge = judge
        self._captures = captures
        self._audit = audit
        self._an_hour = an_hour
        self._taken: dict[int, deque[float]] = {}
        self._refused: dict[int, float] = {}

    async def run(self) -> None:
        """Look every few seconds, for ever. A look that fails is logged, and the next one is due.

        Where no captures are to be taken verdicts are made all the same: the last one is logged at a worker's end.
        """
        failures = Failures("a look for what grows")
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is logged, and the next look is due
                failures.failed(error)

    async def look(self) -> None:
        """Take what the verdicts of this moment ask for, one capture after the other."""
        alive = {worker.pid for worker in self._targets.workers()}
        self._taken = {pid: taken for pid, taken in self._taken.items() if pid in alive}
        self._refused = {pid: at for pid, at in self._refused.items() if pid in alive}
        for snapshot in await self._targets.snapshots():
            if snapshot.state != "answering":
                continue
            asked = wanted(await self._judge.verdict(snapshot))
            if asked is not None and self._due(snapshot, asked["kind"]):
                await self._take(snapshot, asked)

    def _due(self, snapshot: Snapshot, kind: str) -> bool:
        pid, now = snapshot.process.pid, time.monotonic()
        if self._captures.latest(snapshot.worker, pid, kind, CAPTURE_SECONDS) is not None:
            return False  # it was taken, and what it shows is in the verdict
        taken = self._taken.setdefault(pid, deque())
        while taken and now - taken[0] >= _HOUR:
            taken.popleft()
        return len(taken) < self._an_hour and now - self._refused.get(pid, -_HOUR) >= _REFUSED_SECONDS

    async def _take(self, snapshot: Snapshot, asked: dict[str, Any]) -> None:
        pid = snapshot.process.pid
        try:
            begun = await self._captures.begin({**asked, "worker": snapshot.worker}, yields=True, by="the verdict")
            self._taken[pid].append(time.monotonic())
            asker = Asker("the verdict")
            self._audit.note("capture", "begun", asker, kind=asked["kind"], worker=snapshot.worker, capture=begun["id"])
            log.info(
                "worker %s: a %s capture is taken to name what grows: %s", snapshot.worker, asked["kind"], begun["id"]
            )
            await self._captures.ended(begun["id"])
        except NotFoundError:  # somebody has cancelled it, or asked for another one, or the worker has ended
            return
        except DiagnosticsError as error:
            self._refused[pid] = time.monotonic()
            log.info("worker %s: no %s capture to name what grows: %s", snapshot.worker, asked["kind"], error)


def wanted(verdict: Verdict) -> dict[str, Any] | None:
    """The capture that would name the culprit of this verdict, as a request; None where none would, or it is named."""
    if verdict.finding.culprit is not None or not (verdict.alarm or verdict.finding.next):
        return None
    asked = _NAMED_BY.get(verdict.word)
    # An inconclusive verdict asks for objects where something grows, and for other things as well.
    if asked is None or (not verdict.alarm and f"--kind {asked['kind']}" not in (verdict.finding.next or "")):
        return None
    return asked
