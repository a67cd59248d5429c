"""The rules at work: looks at every worker's recording, fires, and takes the captures. `dry_run` does the same over the past.

A firing is always logged and counted, whatever becomes of its capture: one that is refused (another runs, too costly,
no room) is logged with the reason, and the rule's cooldown holds all the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...analysis.trend import WINDOWS, seconds_to_limit, trend
from ...analysis.verdict.readings import LITTLE
from ...errors import DiagnosticsError, NotFoundError
from ..audit import Asker, Audit
from ..captures.controller import Captures
from ..failures import Failures
from ..recording import timeline
from ..recording.recorder import Recorder
from ..recording.ring import Recording
from ..workers.targets import Targets, Worker
from .capture_rules import DEFAULTS, Engine, Firing, Rule

__all__ = ["Guard", "dry_run"]

log = logging.getLogger("diagnostics.monitor")

_LOOK_SECONDS = 1.0
_KEPT_FIRINGS = 100
# Triggers on what all processes of the cgroup are charged for together.
_OF_THE_CGROUP = frozenset({"cgroup_share", "seconds_to_limit"})
_FORECAST_SECONDS = 60.0


@dataclass
class Fired:
    """A firing of a live rule. `outcome`: capturing, done, failed, refused, cancelled, spared where what grows is not in
    this worker, or logged where no capture was asked."""

    worker: str
    rule: str
    says: str
    time: float
    outcome: str
    capture: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Guard:
    """Applies `rules` to every worker; `run` until cancelled."""

    def __init__(
        self,
        targets: Targets,
        recorder: Recorder,
        captures: Captures,
        audit: Audit,
        rules: tuple[Rule, ...] = DEFAULTS,
    ) -> None:
        self.rules = rules
        self.firings: deque[Fired] = deque(maxlen=_KEPT_FIRINGS)
        self.counts: Counter[tuple[str, str, str]] = Counter()  # (worker, rule, outcome)
        self._targets = targets
        self._recorder = recorder
        self._captures = captures
        self._audit = audit
        self._engines: dict[int, Engine] = {}
        self._machine = _machine_bytes()

    async def run(self) -> None:
        """Look once a second, for ever. A look that fails is counted and logged, and the next one is due."""
        if not self.rules:
            return
        failures = Failures("a look of the rules")
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    for worker, firing in self.look():
                        group.create_task(self._act(worker, firing), name=f"rule {firing.rule.name}")
                except Exception as error:  # noqa: BLE001  # whatever it is: the rules are for when things go wrong
                    failures.failed(error)
                await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> list[tuple[Worker, Firing]]:
        """What fires now, by worker; the rules remember that it did."""
        workers = self._targets.workers()
        self._engines = {
            worker.pid: self._engines.get(worker.pid) or Engine(self.rules) for worker in workers
        }  # what a dead worker's rules remember is not its successor's
        now = time.monotonic()
        return [
            (worker, firing)
            for worker in workers
            if (values := self._values(worker)) is not None
            for firing in self._engines[worker.pid].look(now, values)
        ]

    def _values(self, worker: Worker) -> dict[str, float | None] | None:
        latest = self._recorder.latest(worker.pid)
        if latest is None:
            return None
        outlook = self._recorder.outlook(worker.pid)
        return values_of(latest, outlook.seconds_to_limit if outlook else None, self._machine)

    async def _act(self, worker: Worker, firing: Firing) -> None:
        rule = firing.rule
        fired = Fired(
            worker.name, rule.name, firing.says, time.time(), "logged" if rule.capture is None else "capturing"
        )
        self.firings.appendleft(fired)
        log.warning("rule %s fired for worker %s: %s", rule.name, worker.name, firing.says)
        try:
            innocent = self._innocent(worker, rule)
            if innocent is not None:
                fired.outcome, fired.reason = "spared", innocent
                log.warning("rule %s: worker %s is not captured: %s", rule.name, worker.name, innocent)
            elif rule.capture is not None:
                request = {**rule.options, "kind": rule.capture, "worker": worker.name}
                fired.capture = (await self._captures.begin(request, by=f"rule {rule.name}"))["id"]
                self._note("begun", rule, worker, fired.capture)
                fired.outcome = (await self._captures.ended(fired.capture))["state"]
        except NotFoundError as error:  # it was cancelled, or the worker has ended
            fired.outcome, fired.reason = "cancelled", error.message
        except DiagnosticsError as error:
            fired.outcome, fired.reason = "refused", error.message
            self._note(error.code, rule, worker, fired.capture)
            log.warning("rule %s: its %s capture was refused: %s", rule.name, rule.capture, error)
        except Exception as error:
            # A defect of ours must not end the watch over everything else.
            log.exception("rule %s could not act", rule.name)
            fired.outcome, fired.reason = "failed", repr(error)
        finally:
            self.counts[worker.name, rule.name, fired.outcome] += 1

    def _innocent(self, worker: Worker, rule: Rule) -> str | None:
        """Why this worker is not to be captured, though the limit that its cgroup shares with others is near: what grows is not
        in it. None where it may be, or nobody knows."""
        if rule.capture is None or rule.trigger not in _OF_THE_CGROUP:
            return None
        slopes = {each.name: self._slope(each, "rss_bytes") for each in self._targets.workers()}
        own, charged = slopes.get(worker.name), self._slope(worker, "cgroup_working_bytes")
        if own is None or charged is None or charged <= 0:
            return None
        most = max(slopes, key=lambda name: slopes[name] or 0.0)
        if most != worker.name and own < LITTLE * (slopes[most] or 0.0):
            return f"what grows is in worker {most}"
        if own < LITTLE * charged and sum(max(0.0, slope or 0.0) for slope in slopes.values()) < LITTLE * charged:
            return "what grows is in none of the workers: see the verdict on the service"
        return None

    def _slope(self, worker: Worker, series: str) -> float | None:
        outlook = self._recorder.outlook(worker.pid)
        growths = outlook.growths if outlook is not None else ()
        return next((growth.trend.slope for growth in growths if growth.series == series), None)

    def _note(self, outcome: str, rule: Rule, worker: Worker, capture: str | None) -> None:
        asker = Asker(f"rule {rule.name}")
        self._audit.note("capture", outcome, asker, kind=rule.capture, worker=worker.name, capture=capture)

    def counted(self, worker: str) -> dict[tuple[str, str], int]:
        """How often each rule fired for this worker, by (rule, outcome)."""
        return {(rule, outcome): count for (name, rule, outcome), count in self.counts.items() if name == worker}

    def to_json(self) -> dict[str, Any]:
        return {
            "rules": [rule.to_json() for rule in self.rules],
            "firings": [fired.to_json() for fired in self.firings],
        }

    def dry_run(self, worker: Worker, rules: tuple[Rule, ...] | None = None) -> list[dict[str, Any]]:
        """What these rules (by default those at work) would have done with this worker's recording. Raises NotFoundError."""
        recording, _path = self._recorder.recording(worker)
        return dry_run(recording, self.rules if rules is None else rules, self._machine)


def values_of(
    row: Mapping[str, float | None], forecast: float | None, machine_bytes: int | None
) -> dict[str, float | None]:
    """What the rules watch, from one row of a recording by its fields' names; None is not known."""
    limit = row.get("cgroup_limit_bytes")
    layers = [row.get("buffered_app_bytes"), row.get("buffered_transport_bytes")]
    known = [held for held in layers if held is not None]
    return {
        "cgroup_share": _share(row.get("cgroup_working_bytes"), limit),
        "rss_share": _share(row.get("rss_bytes"), limit or machine_bytes),
        "seconds_to_limit": forecast,
        "buffered_bytes": sum(known) if known else None,
    }


def dry_run(recording: Recording, rules: tuple[Rule, ...], machine_bytes: int | None) -> list[dict[str, Any]]:
    """When each rule would have fired over all that is recorded, oldest first; wall-clock times.

    Forecasts are made once a minute of the recorded time, from the rows until then.
    """
    engine = Engine(rules)
    names = [name for name, _ in timeline.columns(recording)]
    rows = [dict(zip(names, row, strict=True)) for row in timeline.rows(recording)]
    wants_forecast = any(rule.trigger == "seconds_to_limit" for rule in rules)
    times = [row["time"] or 0.0 for row in rows]
    forecast, due = None, -math.inf
    firings: list[dict[str, Any]] = []
    for at, (now, row) in enumerate(zip(times, rows, strict=True)):
        if wants_forecast and now >= due:
            forecast, due = _forecast(rows, times, at), now + _FORECAST_SECONDS
        firings += (
            {"rule": firing.rule.name, "time": now, "says": firing.says, "capture": firing.rule.capture}
            for firing in engine.look(now, values_of(row, forecast, machine_bytes))
        )
    return firings


def _forecast(rows: list[dict[str, float | None]], times: list[float], at: int) -> float | None:
    """Seconds to the limit as the recorder would have said when row `at` was the last."""
    used, limit = rows[at].get("cgroup_working_bytes"), rows[at].get("cgroup_limit_bytes")
    if used is None or limit is None:
        return None
    for window in WINDOWS:
        first = bisect_left(times, times[at] - window)
        points = [
            (times[place], held)
            for place in range(first, at + 1)
            if (held := rows[place].get("cgroup_working_bytes")) is not None
        ]
        seconds = seconds_to_limit(trend(points), used, limit)
        if seconds is not None:
            return seconds
    return None


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
