"""The rules at work: looks at every worker's recording, fires, takes captures, and hands what goes out to the deliveries.

A firing is always logged and counted, whatever becomes of its actions: a capture that is refused (another runs, too costly, no
room) is logged with the reason, and the rule's cooldown holds all the same. Limits count by the worker's number and are kept
on the disk: neither a new process nor a new monitor begins them anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ...analysis.verdict.readings import LITTLE
from ...errors import DiagnosticsError, NotFoundError
from ..audit import Asker, Audit
from ..captures.controller import Captures
from ..failures import Failures
from ..recording.recorder import Recorder
from ..rules.actions.deliveries import Deliveries, Delivery
from ..rules.actions.messages import Facts
from ..rules.engine import Engine
from ..rules.limits import Limits
from ..rules.limits_file import LimitsFile
from ..rules.rule import DEFAULTS, Action, Capture, Firing, Log, Rule
from ..workers.targets import Snapshot, Targets, Worker
from .judge import CAPTURE_SECONDS, Judge
from .watched import dry_run, machine_bytes, values_of, values_of_verdict, wants_verdict

__all__ = ["Fired", "Guard"]

log = logging.getLogger("diagnostics.monitor")

_LOOK_SECONDS: Final = 1.0
# A verdict takes tens of milliseconds; rules that need one are content with one so old.
_VERDICT_SECONDS: Final = 5.0
_OLDEST_VERDICT_SECONDS: Final = 30.0
# How long a message waits for the id of the capture that its rule begins.
_BEGIN_SECONDS: Final = 3.0
_KEPT_FIRINGS: Final = 100
# Triggers on what all processes of the cgroup are charged for together.
_OF_THE_CGROUP: Final = frozenset({"cgroup_share", "seconds_to_limit"})
_LEVELS: Final = {"warning": logging.WARNING, "error": logging.ERROR}


@dataclass
class Fired:
    """A firing of a live rule. `outcome`: capturing, done, failed, refused, cancelled, spared where what grows is not in
    this worker, or logged where no capture was asked. `actions`: [action, outcome, reason] of each that has ended."""

    worker: str
    rule: str
    says: str
    time: float
    outcome: str
    actions: list[tuple[str, str, str | None]]
    capture: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Guard:
    """Applies `rules` to every worker; `run` until cancelled, `deliveries.run` beside it.

    judge   for the triggers that need a verdict; None: what they watch is not known
    kept    where the limits outlive the monitor; None: nowhere
    """

    def __init__(
        self,
        targets: Targets,
        recorder: Recorder,
        captures: Captures,
        audit: Audit,
        rules: tuple[Rule, ...] = DEFAULTS,
        *,
        judge: Judge | None = None,
        kept: LimitsFile | None = None,
    ) -> None:
        self.rules = rules
        self.firings: deque[Fired] = deque(maxlen=_KEPT_FIRINGS)
        self.counts: Counter[tuple[str, str, str]] = Counter()  # (worker, rule, outcome)
        self.action_counts: Counter[tuple[str, str, str, str]] = Counter()  # (worker, rule, action, outcome)
        self.deliveries = Deliveries()
        self._targets = targets
        self._recorder = recorder
        self._captures = captures
        self._audit = audit
        self._judge = judge if wants_verdict(rules) else None
        self._kept = kept
        # Limits count by the wall clock, which may jump: within this process the monotonic clock leads it on.
        self._wall = time.time() - time.monotonic()
        self._limits = kept.load(time.time()) if kept is not None else Limits()
        self._engines: dict[int, Engine] = {}
        self._judged: dict[int, dict[str, float | None]] = {}
        self._judged_at = -math.inf
        self._machine = machine_bytes()

    async def run(self) -> None:
        """Look once a second, for ever. A look that fails is counted and logged, and the next one is due."""
        if not self.rules:
            return
        failures = Failures("a look of the rules")
        async with asyncio.TaskGroup() as group:
            if self._judge is not None:
                group.create_task(self._keep_judging(self._judge), name="verdicts for rules")
            while True:
                try:
                    for worker, firing in self.look():
                        group.create_task(self._act(worker, firing), name=f"rule {firing.rule.name}")
                except Exception as error:  # noqa: BLE001  # whatever it is: the rules are for when things go wrong
                    failures.failed(error)
                await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> list[tuple[Worker, Firing]]:
        """What fires now, by worker; the rules remember that it did."""
        # Those that are recorded: of others there is nothing that a rule could look at.
        workers = self._recorder.workers
        self._engines = {
            worker.pid: self._engines.get(worker.pid) or Engine(self.rules, self._limits, worker.name)
            for worker in workers
        }  # how long a dead worker's value has held says nothing of its successor's
        now = time.monotonic()
        fired = []
        for worker in workers:
            values = self._values(worker)
            if values is None:
                continue
            engine = self._engines[worker.pid]
            fired += [(worker, firing) for firing in engine.look(now, values, self._wall + now)]
            for rule in engine.suppressed():
                self._suppressed(worker, rule)
        if fired and self._kept is not None:
            self._kept.save(self._limits)
        return fired

    def _suppressed(self, worker: Worker, rule: Rule) -> None:
        log.info("rule %s would have fired for worker %s, and its limits forbid it", rule.name, worker.name)
        for action in rule.actions or (Log(),):
            self.action_counts[worker.name, rule.name, action.do, "suppressed"] += 1

    def _values(self, worker: Worker) -> dict[str, float | None] | None:
        latest = self._recorder.latest(worker.pid)
        if latest is None:
            return None
        outlook = self._recorder.outlook(worker.pid)
        values = values_of(latest, outlook.seconds_to_limit if outlook else None, self._machine)
        fresh = time.monotonic() - self._judged_at < _OLDEST_VERDICT_SECONDS
        judged = dict(self._judged.get(worker.pid, {})) if fresh else {}
        counted = values["unclosed_upstreams"]
        if counted is not None:  # the ledger counts them; a verdict reckons without one
            judged["unclosed_upstreams"] = counted
        return {**values, **judged}

    async def _keep_judging(self, judge: Judge) -> None:
        """Read again and again what only verdicts tell, beside the looks: a silent agent must not delay those."""
        failures = Failures("a look of the rules at the verdicts")
        while True:
            try:
                self._judged = {
                    snapshot.process.pid: await self._told_by(judge, snapshot)
                    for snapshot in await self._targets.snapshots()
                }
                self._judged_at = time.monotonic()
            except Exception as error:  # noqa: BLE001  # what verdicts would tell is unknown until the next one
                failures.failed(error)
            await asyncio.sleep(_VERDICT_SECONDS)

    async def _told_by(self, judge: Judge, snapshot: Snapshot) -> dict[str, float | None]:
        pid = snapshot.process.pid
        tasks = self._captures.latest(snapshot.worker, pid, "tasks", CAPTURE_SECONDS)
        return values_of_verdict(await judge.verdict(snapshot), self._recorder.outlook(pid), tasks)

    # What is done

    async def _act(self, worker: Worker, firing: Firing) -> None:
        rule = firing.rule
        outcome = "logged" if rule.capture is None else "capturing"
        fired = Fired(worker.name, rule.name, firing.says, time.time(), outcome, [])
        self.firings.appendleft(fired)
        log.warning("rule %s fired for worker %s: %s", rule.name, worker.name, firing.says)
        try:
            await self._do(worker, firing, fired)
        except Exception:
            # A defect of ours must not end the watch over everything else.
            log.exception("rule %s could not act", rule.name)
            fired.outcome = "failed"
        finally:
            self.counts[worker.name, rule.name, fired.outcome] += 1

    async def _do(self, worker: Worker, firing: Firing, fired: Fired) -> None:
        """Its capture, and beside that all others, which wait a moment for the capture's id."""
        capture, known = firing.rule.capture, asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if capture is not None:
                group.create_task(self._capture(worker, firing.rule, capture, fired, known))
            try:
                if capture is not None and len(firing.rule.actions) > 1:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_BEGIN_SECONDS):
                            await known.wait()
            finally:  # also where the monitor ends just now
                self._tell(worker, firing, fired)

    async def _capture(self, worker: Worker, rule: Rule, capture: Capture, fired: Fired, known: asyncio.Event) -> None:
        """Take the rule's capture; never raises. `known` is set once it has begun or was refused."""
        try:
            innocent = self._innocent(worker, rule)
            if innocent is not None:
                fired.outcome, fired.reason = "spared", innocent
                log.warning("rule %s: worker %s is not captured: %s", rule.name, worker.name, innocent)
                return
            request = {**capture.options, "kind": capture.kind, "worker": worker.name}
            fired.capture = (await self._captures.begin(request, by=f"rule {rule.name}"))["id"]
            self._note("begun", rule, worker, fired.capture)
            known.set()
            fired.outcome = (await self._captures.ended(fired.capture))["state"]
        except NotFoundError as error:  # it was cancelled, or the worker has ended
            fired.outcome, fired.reason = "cancelled", error.message
        except DiagnosticsError as error:
            fired.outcome, fired.reason = "refused", error.message
            self._note(error.code, rule, worker, fired.capture)
            log.warning("rule %s: its %s capture was refused: %s", rule.name, capture.kind, error)
        except Exception as error:
            # A defect of ours must not end the watch over everything else.
            log.exception("rule %s could not act", rule.name)
            fired.outcome, fired.reason = "failed", repr(error)
        finally:
            known.set()
            self._ended(worker, rule, fired, capture, fired.outcome, fired.reason)

    def _tell(self, worker: Worker, firing: Firing, fired: Fired) -> None:
        """Do everything but the capture. Never waits."""
        if not firing.rule.actions:  # the line of the firing is all
            self._ended(worker, firing.rule, fired, Log(), "done", None)
            return
        others = [action for action in firing.rule.actions if not isinstance(action, Capture)]
        facts = self._facts(worker, firing, fired) if others else None
        for action in others:
            assert facts is not None
            ended = partial(self._ended, worker, firing.rule, fired, action)
            if isinstance(action, Log):
                log.log(_LEVELS[action.level], "%s", json.dumps(facts.to_json()))
                ended("done", None)
            else:
                self.deliveries.put(Delivery(action, facts, ended))

    def _facts(self, worker: Worker, firing: Firing, fired: Fired) -> Facts:
        rule = firing.rule
        told = rule.to_json()
        return Facts(
            delivery=uuid.uuid4().hex,
            rule=rule.name,
            says=firing.says,
            trigger=rule.trigger or "when",
            value=firing.value,
            bound=told["bound"],
            worker=worker.name,
            pid=worker.pid,
            time=fired.time,
            host=socket.gethostname(),
            verdict=self._recorder.said(worker.pid),
            capture=fired.capture,
            capture_refused=fired.reason,
        )

    def _ended(
        self, worker: Worker, rule: Rule, fired: Fired, action: Action, outcome: str, reason: str | None
    ) -> None:
        """Count and write down how an action has ended."""
        self.action_counts[worker.name, rule.name, action.do, outcome] += 1
        fired.actions.append((action.do, outcome, reason))
        if isinstance(action, Capture):
            return  # it has lines of its own, in the log and in the audit log
        asker = Asker(f"rule {rule.name}")
        self._audit.note("rule", outcome, asker, action=action.do, worker=worker.name, reason=reason)
        if outcome in ("failed", "dropped"):
            log.warning("rule %s: its %s %s: %s", rule.name, action.do, _SAID[outcome], reason)

    def _innocent(self, worker: Worker, rule: Rule) -> str | None:
        """Why this worker is not to be captured, though the limit that its cgroup shares with others is near: what grows is not
        in it. None where it may be, or nobody knows."""
        if rule.trigger not in _OF_THE_CGROUP:
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
        kind = rule.capture.kind if rule.capture else None
        self._audit.note("capture", outcome, asker, kind=kind, worker=worker.name, capture=capture)

    # What is shown

    def counted(self, worker: str) -> dict[tuple[str, str], int]:
        """How often each rule fired for this worker, by (rule, outcome)."""
        return {(rule, outcome): count for (name, rule, outcome), count in self.counts.items() if name == worker}

    def counted_actions(self, worker: str) -> dict[tuple[str, str, str], int]:
        """How the actions of rules ended for this worker, by (rule, action, outcome)."""
        return {ended[1:]: count for ended, count in self.action_counts.items() if ended[0] == worker}

    def to_json(self) -> dict[str, Any]:
        return {
            "rules": [rule.to_json() for rule in self.rules],
            "firings": [fired.to_json() for fired in self.firings],
        }

    def dry_run(self, worker: Worker, rules: tuple[Rule, ...] | None = None) -> list[dict[str, Any]]:
        """What these rules (by default those at work) would have done with this worker's recording. Raises NotFoundError."""
        recording, _path = self._recorder.recording(worker)
        return dry_run(recording, self.rules if rules is None else rules, self._machine)


_SAID: Final[Mapping[str, str]] = {"failed": "failed", "dropped": "was dropped"}
