"""The overview, one JSON object with all data of the page: made at most twice a second, however many pages are open."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...analysis.lines.growth import told_first
from ...analysis.verdict.service import Told
from ..captures.controller import Captures
from ..captures.streams import rows_of
from ..judging.guard import Guard
from ..judging.judge import Judge
from ..kernel.cgroup import read_cgroup, why_no_cgroup
from ..recording.recorder import Recorder
from ..workers.service_sum import ServiceLook
from ..workers.targets import Snapshot, Targets

if TYPE_CHECKING:
    from ..egress.egress import Egress

__all__ = ["SCHEMA", "Overview", "no_lines", "summary"]

SCHEMA = "highwater.memory/1"
_SHARED_SECONDS = 0.5
# Of the live heap: how many lines are shown, and what they gained within which time where nothing grows.
_LINES, _LINES_SECONDS = 10, 3600.0
_TASK_GROUPS = 10


def summary(capture: dict[str, Any]) -> dict[str, Any]:
    """A capture's JSON for the overview, without its result, which has a route of its own."""
    shown = {key: capture[key] for key in ("id", "kind", "worker", "created", "state", "progress", "error")}
    return {**shown, "artifacts": [artifact["name"] for artifact in capture.get("artifacts") or ()]}


_CHARGED = ("usage_bytes", "working_bytes", "limit_bytes", "tmpfs_bytes", "kernel_bytes", "socket_bytes", "oom_kills")


def charged(look: ServiceLook) -> dict[str, Any] | None:
    """The charges of the cgroup of the service's first process; None where it cannot be read.

    tmpfs, kernel and sockets are of the process's own level, limit and usage of the level with the tightest limit.
    """
    cgroup = read_cgroup(look.members[0].pid) if look.members else None
    if cgroup is None:
        return None
    charges = cgroup.to_json()
    return {name: charges[name] for name in _CHARGED}


def no_lines(snapshot: Snapshot) -> str:
    """Why nothing is known of what a worker's lines hold."""
    if snapshot.reading is None:
        return snapshot.reason or "its agent does not answer"
    heap = snapshot.reading.get("heap")
    if heap is None:
        return "it keeps no live heap: start it with DIAGNOSTICS_HEAP=on"
    if heap["reason"] is None and heap.get("dropped"):
        return f"its table is full, {heap['dropped']:,} samples had no room: raise DIAGNOSTICS_HEAP_RATE"
    return heap["reason"] or "there are too few looks at its live heap yet: that takes half a minute"


class Overview:
    def __init__(
        self,
        targets: Targets,
        captures: Captures,
        judge: Judge,
        guard: Guard,
        recorder: Recorder,
        egress: Egress | None = None,
    ) -> None:
        self._targets = targets
        self._captures = captures
        self._judge = judge
        self._guard = guard
        self._recorder = recorder
        self._egress = egress
        self._whole = recorder.whole
        self._lock = asyncio.Lock()
        self._shared: tuple[float, dict[str, Any]] | None = None

    async def read(self, url: str) -> dict[str, Any]:
        """The overview of all workers, cached for all open pages; `url`: the monitor's, for commands in it."""
        async with self._lock:
            if self._shared is None or time.monotonic() - self._shared[0] >= _SHARED_SECONDS:
                overview = await self.of(await self._targets.snapshots(), url)
                self._shared = time.monotonic(), overview
            return self._shared[1]

    async def of(self, snapshots: list[Snapshot], url: str) -> dict[str, Any]:
        look = await self._whole.look()
        verdicts = await self.verdicts(snapshots, url)
        workers = [
            {
                **self._with_streams(snapshot),
                "children": look.children_of(snapshot.worker).to_json(),
                "verdict": verdict,
                "limit": self._limit(snapshot),
                "growth": self._growth(snapshot),
                "lines": await self._lines(snapshot),
            }
            for snapshot, verdict in zip(snapshots, verdicts, strict=True)
        ]
        return {
            "schema": SCHEMA,
            "version": __version__,
            "time": time.time(),
            "workers": workers,
            "attached": self._targets.attachments.to_json(),
            "ends": [ending.to_json() for ending in self._recorder.endings()],
            "service": await self.service(snapshots, verdicts, url),
            "captures": [self._summary(capture) for capture in self._captures.all()],
            "egress": self._egress.to_json() if self._egress is not None else None,
            **self._guard.to_json(),
        }

    def _summary(self, capture: dict[str, Any]) -> dict[str, Any]:
        shown = summary(capture)
        return shown if self._egress is None else {**shown, "egress": self._egress.state_of(capture["id"])}

    async def verdicts(self, snapshots: list[Snapshot], url: str) -> list[dict[str, Any]]:
        """The verdict on each worker, as JSON."""
        return [
            (await self._judge.verdict(snapshot)).to_json(url, snapshot.worker if len(snapshots) > 1 else None)
            for snapshot in snapshots
        ]

    async def service(self, snapshots: list[Snapshot], verdicts: list[dict[str, Any]], url: str) -> dict[str, Any]:
        """The sums over all processes, and the verdict on the service as a whole."""
        look = await self._whole.look()
        told = {
            snapshot.worker: Told(verdict["verdict"], verdict["confidence"], verdict["load_bytes"])
            for snapshot, verdict in zip(snapshots, verdicts, strict=True)
        }
        alarms = any(verdict["alarm"] for verdict in verdicts)
        judged = await self._judge.of_whole(look, told)
        # Growth of the cgroup beside its processes is an alarm of its own, beside any worker's.
        alarm = judged.alarm and (not alarms or judged.word == "cgroup_growth")
        service = {**look.to_json(), "charged": charged(look), "verdict": {**judged.to_json(url), "alarm": alarm}}
        hidden = why_no_cgroup(look.members[0].pid) if service["charged"] is None and look.members else None
        if hidden is not None:
            service["unknown"]["cgroup"] = f"no limit, no forecast, no rule on either: {hidden}"
        return service

    def _limit(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """The worker's memory limit, its charge, and the time until they meet; None where nothing is recorded."""
        outlook = self._recorder.outlook(snapshot.process.pid)
        if outlook is None:
            return None
        return {
            "limit_bytes": outlook.limit_bytes,
            "used_bytes": outlook.used_bytes,
            "seconds_to_limit": outlook.seconds_to_limit,
        }

    def _growth(self, snapshot: Snapshot) -> dict[str, float] | None:
        """Growth in bytes an hour, an estimate with its 95 % interval; None where there are too few readings."""
        outlook = self._recorder.outlook(snapshot.process.pid)
        drift = outlook.memory if outlook is not None else None
        if drift is None:
            return None
        return {"low": drift.low * 3600, "mid": drift.slope * 3600, "high": drift.high * 3600}

    async def _lines(self, snapshot: Snapshot) -> dict[str, Any]:
        """What the lines of its code hold and have gained by the live heap, while memory grows since that began, else within
        an hour; without rows, why that is unknown."""
        pid, now = snapshot.process.pid, time.time()
        outlook = self._recorder.outlook(pid)
        grows = [growth.trend.since for growth in (outlook.growths if outlook else ()) if growth.trend.growing]
        since = min((each for each in grows if each is not None), default=now - _LINES_SECONDS)
        gained = await self._recorder.lines_gained(pid, snapshot.worker, since)
        if gained is None:
            return {"since": None, "seconds": None, "lives": 1, "rows": [], "unknown": no_lines(snapshot)}
        began, rows = gained
        return {
            "since": began,
            "seconds": rows[0].seconds if rows else now - began,
            "lives": rows[0].lives if rows else 1,
            "rows": [row.to_json() for row in told_first(rows, _LINES)],
            "unknown": None,
        }

    def _with_streams(self, snapshot: Snapshot) -> dict[str, Any]:
        captured = self._captures.latest(snapshot.worker, snapshot.process.pid, "tasks")
        shown = {
            **snapshot.to_json(),
            "streams": rows_of(snapshot, self._captures),
            "task_states": (snapshot.reading or {}).get("task_states"),
            "task_groups": {"top": captured["top"][:_TASK_GROUPS]} if captured else None,
        }
        if shown["ledger"]:
            shown["ledger"] = {**shown["ledger"], "top": shown["streams"]}
        return shown
