"""Verdicts on live workers: what the monitor knows, put into the shape that `analysis.verdict` judges.

Judging an hour of readings takes tens of milliseconds, so it is done in a thread, and everyone who asks within two seconds
shares it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ...analysis.lives import recycled
from ...analysis.trend import Points, warm_up_ends
from ...analysis.verdict.readings import Readings
from ...analysis.verdict.service import Told, verdict_on_whole
from ...analysis.verdict.verdict import TOO_FEW, Verdict, verdict
from ...errors import NotFoundError
from ..captures.controller import Captures
from ..captures.streams import rows_of
from ..recording.recorder import Recorder
from ..recording.service_record import series_of_whole
from ..recording.vitals import JUDGED, Recorded
from ..workers.service_sum import ServiceLook
from ..workers.targets import Snapshot, Targets
from .untraced import without_tracers

__all__ = ["CAPTURE_SECONDS", "Judge", "readings_of", "series_of"]

_SHARED_SECONDS = 2.0
# What a capture showed longer ago says nothing of what is there now.
CAPTURE_SECONDS = 600.0
# So long after a capture the gap that it left may be a whole block of the shortest window.
_DISTURBED_SECONDS = 120.0
_CAPTURES = ("objects", "tasks", "retained", "tracemalloc", "memray")
_LAYERS = {"transport": "transport_bytes", "kernel": "kernel_bytes"}


class Judge:
    """Judges workers on demand."""

    def __init__(self, targets: Targets, recorder: Recorder, captures: Captures) -> None:
        self._targets = targets
        self._recorder = recorder
        self._captures = captures
        self._shared: dict[int, tuple[float, Verdict]] = {}
        self._whole: tuple[float, tuple[dict[str, Points], float]] | None = None
        self._steady: dict[int | str, Verdict] = {}  # the last verdict while no capture ran
        self._disturbed: dict[int | str, float] = {}  # when a capture was last seen to run
        self._before: dict[int, str] = {}  # what was said of each worker when its agent last answered

    async def verdict(self, snapshot: Snapshot) -> Verdict:
        """The verdict on the worker of this snapshot, at most two seconds old."""
        pid, now = snapshot.process.pid, time.monotonic()
        shared = self._shared.get(pid)
        if shared is not None and now - shared[0] < _SHARED_SECONDS:
            return shared[1]
        latest = {
            kind: result
            for kind in _CAPTURES
            if (result := self._captures.latest(snapshot.worker, pid, kind, CAPTURE_SECONDS)) is not None
        }
        rows, before = rows_of(snapshot, self._captures), self._before.get(pid, "")
        readings = readings_of(snapshot, self._recorded(snapshot), latest, rows, before)
        recorded, _since = self._series_of_whole()
        series, since = without_tracers(readings.series, readings.since, self._captures.traced(pid))
        readings = replace(
            readings,
            series={**series, "whole_pss_bytes": recorded.get("pss_bytes", ())},
            since=since,
            lives=self._recorder.lives(snapshot.worker),
            offspring=self._recorder.offspring.of(snapshot.worker),
            lines=self._recorder.lines.history(pid),
        )
        # A worker that is recycled is judged over its line: its last verdict is kept by its number, not by its pid.
        of = snapshot.worker if recycled(readings.lives, readings.age) else pid
        judged = self._held_over(snapshot, of, await asyncio.to_thread(verdict, readings))
        if snapshot.state == "answering":
            self._before = {worker.pid: self._before.get(worker.pid, "") for worker in self._targets.known}
            self._before[pid] = judged.finding.says
        self._shared = {other: kept for other, kept in self._shared.items() if now - kept[0] < _SHARED_SECONDS}
        self._shared[pid] = now, judged
        return judged

    def said(self, pid: int) -> str:
        """What was last said of this process while its agent answered; "" where nothing was."""
        return self._before.get(pid, "")

    def _held_over(self, snapshot: Snapshot, of: int | str, judged: Verdict) -> Verdict:
        """A capture stops the readings, or spoils them, for as long as it takes: where that leaves nothing to judge, the
        verdict before it stays. Where there are readings again and they decide nothing, an accusation stays.

        of   whose, a process id, or the number of a worker that is recycled
        """
        now = time.monotonic()
        runs = self._captures.disturbs(snapshot.process.pid)
        if runs:
            self._disturbed[of] = now
        disturbed = now - self._disturbed.get(of, -math.inf) < _DISTURBED_SECONDS
        before = self._steady.get(of)
        if (
            judged.word == "inconclusive"
            and disturbed
            and before is not None
            and before.word != judged.word
            and snapshot.state == "answering"
            and ((too_few := runs or judged.finding.says == TOO_FEW) or before.finding.confidence != "low")
        ):
            since = "there are too few readings" if too_few else "growth is neither seen nor excluded"
            says = f"{before.finding.says} (Found before the last capture, since which {since}.)"
            return replace(before, finding=replace(before.finding, says=says))
        if judged.word != "inconclusive" or not disturbed:
            alive = {name for worker in self._targets.known for name in (worker.pid, worker.name)}
            self._disturbed = {each: at for each, at in self._disturbed.items() if each in alive}
            self._steady = {each: steady for each, steady in self._steady.items() if each in alive} | {of: judged}
        return judged

    async def of_whole(self, look: ServiceLook, workers: Mapping[str, Told]) -> Verdict:
        """The verdict on the service as a whole. `workers`: what was found of each alone."""
        series, since = self._series_of_whole()
        total = look.total
        return await asyncio.to_thread(
            verdict_on_whole,
            series,
            since,
            processes=total.count,
            rss=total.rss,
            workers=workers,
            unknown=look.unknown(),
        )

    def _series_of_whole(self) -> tuple[dict[str, Points], float]:
        """As `series_of_whole`, for all workers that are judged in the same two seconds."""
        now = time.monotonic()
        if self._whole is None or now - self._whole[0] >= _SHARED_SECONDS:
            series, since = series_of_whole(self._recorder.of_whole())
            self._whole = now, without_tracers(series, since, self._captures.traced())
        return self._whole[1]

    def _recorded(self, snapshot: Snapshot) -> Recorded | None:
        worker = next((each for each in self._targets.known if each.pid == snapshot.process.pid), None)
        if worker is None:  # it has ended since the snapshot
            return None
        try:
            return self._recorder.recorded(worker, JUDGED)
        except NotFoundError:
            return None


def readings_of(
    snapshot: Snapshot,
    recorded: Recorded | None,
    captures: Mapping[str, Mapping[str, Any]],
    streams: Sequence[Mapping[str, Any]],
    before: str = "",
) -> Readings:
    """What is known of one worker; `streams` are its rows, with what captures have added. `before`: see Readings."""
    reading = snapshot.reading or {}
    ledger = reading.get("ledger") or {}
    rows = (snapshot.connections.get("routes") or {}).values()
    layers: dict[str, int | None] = {"app": ledger.get("buffered_bytes")}
    for layer, key in _LAYERS.items():
        known = [row[key] for row in rows if row.get(key) is not None]
        layers[layer] = sum(known) if known else None
    opened = [row["open"] for row in rows if row.get("open") is not None]
    series, since = series_of(recorded) if recorded else ({}, -math.inf)
    started = recorded.started if recorded else None
    return Readings(
        state=snapshot.state,
        balance=snapshot.balance,
        layers=layers,
        open_streams=ledger.get("open", sum(opened) if opened else None),
        streams=streams,
        series=series,
        since=since,
        captures=captures,
        window=reading.get("window"),
        unknown=reading.get("unknown") or {},
        silent=_silence(snapshot),
        before=before,
        # One of which nothing is recorded yet has just taken over its number.
        age=time.time() - started if isinstance(started, int | float) else None if recorded else 0.0,
        python=snapshot.about.get("python"),
        unread=_unread(snapshot),
        memray=snapshot.about.get("memray"),
        collects=(reading.get("gc") or {}).get("enabled"),
        saved=(reading.get("gc") or {}).get("saved"),
    )


def _unread(snapshot: Snapshot) -> dict[str, str]:
    """Why something that a verdict asks for is not known, by the series' names."""
    allocators = (snapshot.reading or {}).get("allocators") or {}
    reasons = dict(allocators.get("unknown") or {})
    balance = (snapshot.balance or {}).get("unknown") or {}
    if "private" in balance:
        reasons["private_bytes"] = balance["private"]
    return reasons


def _silence(snapshot: Snapshot) -> str:
    if snapshot.silent_since is None:
        return ""
    since = datetime.fromtimestamp(snapshot.silent_since, UTC).strftime("%H:%M:%S")
    return f"since {since} UTC ({snapshot.reason})"


def series_of(recorded: Recorded) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """The judged series of the finest ring, without what is not known, and the time at which the warm-up is over."""
    times = recorded.columns["time"]
    if not times:
        return {}, -math.inf
    started = recorded.started
    first = float(started) if isinstance(started, int | float) else times[0]
    series = {name: list(zip(times, recorded.columns[name], strict=True)) for name in JUDGED}
    for name, points in series.items():
        # A sum that is no number has one that is none in it: mostly there is none, and nothing to be gone through.
        if math.isnan(sum(recorded.columns[name])):
            series[name] = [point for point in points if not math.isnan(point[1])]
    return series, warm_up_ends(first, times[-1])
