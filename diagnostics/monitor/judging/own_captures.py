"""The verdict's own readings: where growth is an alarm and its culprit is not known yet, the captures that would name it are
taken without being asked for, so that the first `status` that somebody types already tells. A weak sign, which is told with low
confidence, does not keep others from being looked into.

Only forked readings are taken, of tasks, objects or what streams retain: no tracer is opened, and nothing slows the service
down but the fork. They are priced like every capture, one that is refused as too costly is not forced, and one that runs makes
way for what somebody asks for. `DIAGNOSTICS_LOOKS_PER_HOUR` bounds how often they are taken of one worker (6 by default: what
a capture shows is believed for ten minutes); 0 takes none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, Final

from ...analysis.verdict.causes import CAUSES
from ...analysis.verdict.finding import Finding
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
    "buffering": {"kind": "retained"},
    "orphan_tasks": _TASKS,
    "thread_growth": _TASKS,
    "retained_objects": _OBJECTS,
    "native_growth": _OBJECTS,
    "memory_growth": _OBJECTS,
    "recycled_growth": _OBJECTS,
    "shared_memory_growth": _OBJECTS,
    "inconclusive": _OBJECTS,
}
# What these name first is where the memory is; who holds it is still to be found.
_PLACES: Final = frozenset({"shared_memory_growth"})


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
        """Take what the verdicts of this moment ask for first, one capture of each worker after the other."""
        snapshots = await self._targets.snapshots()
        alive = {worker.pid for worker in self._targets.known}
        self._taken = {pid: taken for pid, taken in self._taken.items() if pid in alive}
        self._refused = {pid: at for pid, at in self._refused.items() if pid in alive}
        for snapshot in snapshots:
            if snapshot.state != "answering":
                continue
            judged = await self._judge.verdict(snapshot)
            outdated = any(finding.outdated for finding in (judged.finding, *judged.also))
            for asked in wanted(judged):
                if self._due(snapshot, asked["kind"], again=outdated and asked == _OBJECTS):
                    await self._take(snapshot, asked)
                    break  # what it shows may make the others needless: the next look tells

    def _due(self, snapshot: Snapshot, kind: str, *, again: bool) -> bool:
        """Whether it is to be taken now. `again`: also where one was taken that is still believed."""
        pid, now = snapshot.process.pid, time.monotonic()
        if not again and self._captures.latest(snapshot.worker, pid, kind, CAPTURE_SECONDS) is not None:
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


def wanted(verdict: Verdict) -> list[dict[str, Any]]:
    """The captures that would name the culprit of this verdict, as requests; none where none would, or it is named.

    The verdict's own capture; where it is only a weak sign, also what the next finding asks for, and so on.
    """
    captures: list[dict[str, Any]] = []
    for finding in (verdict.finding, *verdict.also):
        asked = _asked_by(finding)
        if asked is not None and asked not in captures:
            captures.append(asked)
        if finding.confidence != "low":
            break
    return captures


def _asked_by(finding: Finding) -> dict[str, Any] | None:
    alarm = CAUSES[finding.word].alarm
    named = finding.culprit is not None and (finding.path is not None or finding.word not in _PLACES)
    if named or not (alarm or finding.next):
        return None
    if finding.word == "buffering" and finding.confidence == "high":  # it is measured
        return None
    asked = _NAMED_BY.get(finding.word)
    # An inconclusive verdict asks for objects where something grows, and for other things as well.
    if asked is None or (not alarm and f"--kind {asked['kind']}" not in (finding.next or "")):
        return None
    return asked
