"""The flight recorder: looks at every worker once a second and keeps what it saw, in memory that never grows and on the disk.

The look is from outside (/proc, cgroup) and one small question to the agent. A worker that does not answer is still
recorded from outside, and asked less often until it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...analysis.lines.growth import LineGrowth
from ...analysis.lives import Life, recycled
from ...analysis.trend import warm_up_ends
from ...errors import DiagnosticsError, NotFoundError
from ..failures import Failures
from ..kernel.cgroup import CgroupReading, Cgroups
from ..kernel.kills import KillCount
from ..kernel.process import Identity, ProcessReading, exit_status, identity, lives, parent_of, read_process
from ..workers.lineage import Lineage, life_of
from ..workers.service_sum import ServiceLook, Whole
from ..workers.targets import Targets, Worker
from .blackbox import BlackBox, Ending
from .earlier import earlier_lives
from .endings import Endings, WorkerEnd
from .line_record import LineRecord
from .offspring import Offspring
from .outlook import COLUMNS, Outlook, judge
from .ring import Recording, RingFile, RingSize
from .service_record import WholeRecord
from .vitals import FIELDS, JUDGED, Recorded, fold, vitals

__all__ = ["RecordSettings", "Recorder"]

log = logging.getLogger("diagnostics.monitor")

# A sample takes a millisecond; an agent that needs longer than this is kept from running, and the next look is due.
_PATIENCE_SECONDS = 0.8
# How often an agent that did not answer is asked again: each question waits in its socket until it runs again.
_SILENT_LOOKS = 5
# A service that was killed closes its end of our standard input a moment before the kernel says that it is gone.
_LAST_LOOK_SECONDS = 0.3
_OUTLOOK_SECONDS = 5.0
_MINUTE = 60.0
# Workers that came and went; what a parent says of an older one's exit is no longer written down.
_REMEMBERED_ENDS = 100
# The first worker's number.
_FIRST = "0"


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """How much is kept of a process: `seconds` of readings `interval` apart, `minutes` of one a minute; 0 seconds: nothing."""

    seconds: float = 3600.0
    interval: float = 1.0
    minutes: int = 1440
    files: int = 20

    @property
    def rings(self) -> tuple[RingSize, ...]:
        return (
            RingSize(self.interval, max(1, math.ceil(self.seconds / self.interval))),
            RingSize(_MINUTE, self.minutes),
        )


@dataclass
class _WorkerTrack:
    """One worker that is being recorded."""

    who: Identity
    worker: str
    file: RingFile
    minute_ends: float
    cgroup: CgroupReading | None = None
    kills: KillCount | None = None
    minute: list[tuple[float, ...]] = field(default_factory=list)
    looks_unanswered: int = 0
    judged: tuple[float, Outlook] | None = None
    latest: tuple[float, ...] | None = None

    def add(self, record: tuple[float, ...]) -> None:
        self.file.append(0, record)
        self.latest = record
        self.minute.append(record)
        if time.monotonic() >= self.minute_ends:
            self.close_minute()
            self.minute_ends = time.monotonic() + _MINUTE

    def saw(self, cgroup: CgroupReading | None) -> None:
        """Remember the cgroup for the worker's end; one that it was moved to is counted from now on."""
        if cgroup is not None:
            if self.cgroup is None or self.cgroup.folder != cgroup.folder:
                self._count_in(cgroup)
            self.cgroup = cgroup

    def _count_in(self, cgroup: CgroupReading) -> None:
        if self.kills is not None:
            self.kills.close()
        try:
            self.kills = KillCount(cgroup.folder)
        except OSError:  # the worker has just ended
            self.kills = None

    def close_minute(self) -> None:
        if self.minute:
            self.file.append(1, fold(self.minute))
            self.minute.clear()

    def close(self) -> None:
        self.file.close()
        if self.kills is not None:
            self.kills.close()
            self.kills = None


class Recorder:
    """Records all workers of `targets`; `run` until cancelled, then `close`. A black box of None records nothing."""

    def __init__(self, targets: Targets, settings: RecordSettings, blackbox: BlackBox | None) -> None:
        self._targets = targets
        self._settings = settings
        self._blackbox = blackbox
        self._workers: list[Worker] = []  # as the last look found them
        self._tracks: dict[int, _WorkerTrack] = {}
        self._exits: dict[int, int] = {}
        self._ended: dict[int, tuple[Path | None, Ending]] = {}
        self._lineage = Lineage()
        self._cgroups = Cgroups()
        self._last_look = 0.0
        self._has_met_a_worker = False
        self._endings = Endings(blackbox)
        # What was last said of a worker, by its pid: asked at its end, when nobody can look any more.
        self.said: Callable[[int], str] = lambda pid: ""
        self.whole = Whole(targets, settings.interval)
        self.offspring = Offspring()
        self.lines = LineRecord(lambda: self._workers, settings.interval, self._file_of)
        self._whole_record = WholeRecord(blackbox.root if blackbox else None, settings.rings[0])

    @classmethod
    def below(cls, root: Path, targets: Targets, settings: RecordSettings) -> Recorder:
        """A recorder with its files in `<root>/blackbox`."""
        return cls(targets, settings, BlackBox(root, settings.files) if settings.seconds else None)

    async def run(self) -> None:
        """Look once an interval, for ever. A look that fails is counted and logged; the next one is due."""
        if self._blackbox is None:
            return
        looking = asyncio.create_task(self.lines.run(), name="lines")
        try:
            await self._run()
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _run(self) -> None:
        failures = Failures("a look of the recorder")
        due = time.monotonic()
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # whatever it is: what is not recorded cannot be read after the crash
                failures.failed(error)
            # Looks that were missed (the machine slept) are not made up for.
            due = max(due + self._settings.interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers that the last look found."""
        return self._workers

    async def look(self) -> None:
        """Look at every worker now, and write down the end of those that are gone."""
        workers = self._workers = self._targets.workers()
        # One that is no worker any more may still live: it gave its agent up, or only supervises now. Its end is awaited.
        for pid, track in list(self._tracks.items()):
            if not lives(track.who):
                self._finish(pid)
        look = await self.whole.look(workers)
        self.offspring.saw(look, [worker.name for worker in workers])
        await asyncio.gather(*(self._look_at(worker, look) for worker in workers))
        if self._blackbox is not None and look.members and look.time != self._last_look:
            self._whole_record.add(look, self._cgroups.read(look.members[0].pid))
        self._last_look = look.time

    def watch(self, pid: int) -> None:
        """Watch `pid` and its descendants. Its recording begins now, so that its end is reported even before the first look."""
        self._targets.watch(pid)
        worker = next((each for each in self._targets.workers() if each.pid == pid), None)
        if worker is not None and pid not in self._tracks:
            track = self._begin(worker)
            if track is not None:
                track.saw(self._cgroups.read(pid))

    def exited(self, pid: int, returncode: int) -> None:
        """What the parent of `pid` was told of its end (as in subprocess: below zero, the signal)."""
        if not self._has_met_a_worker and self._blackbox is not None:
            # It has ended before this monitor could look for the first time, as on a machine that is busy. It would be "0".
            self._endings.add(_FIRST, pid, Ending(time.time(), returncode, None, None, None), "", None)
        elif pid in self._ended:
            path, ending = self._ended.pop(pid)
            if path is not None:
                self._explain(path, ending, returncode)
        else:
            self._exits[pid] = returncode

    async def close(self) -> None:
        """Write down the ends that can be seen now, and let go of the files."""
        patience = time.monotonic() + _LAST_LOOK_SECONDS
        while self._tracks:
            for pid, track in list(self._tracks.items()):
                if not lives(track.who):
                    self._finish(pid)
            if not self._tracks or time.monotonic() > patience:
                break
            await asyncio.sleep(0.02)
        for track in self._tracks.values():
            track.close_minute()
            track.close()
        self._tracks.clear()
        self._whole_record.close()
        self.lines.close()

    def endings(self) -> list[WorkerEnd]:
        """How workers ended that did not end well, the last first: of this monitor's life, and what the last one left."""
        return self._endings.last()

    def counted(self, worker: str) -> tuple[int, int]:
        """How often a process of this worker was replaced, and killed for memory, since this monitor began."""
        return self._endings.counted(worker)

    def of_whole(self) -> Recording | None:
        """What was recorded of the service as a whole; None before the first look."""
        return self._whole_record.read()

    def recording(self, worker: Worker) -> tuple[Recording, Path | None]:
        """What was recorded of a worker, and its file (None: in memory only). Raises NotFoundError."""
        track = self._track_of(worker)
        return track.file.read(), track.file.path

    def _track_of(self, worker: Worker) -> _WorkerTrack:
        track = self._tracks.get(worker.pid)
        if track is None:
            remedy = "set DIAGNOSTICS_RECORD_SECONDS above 0" if self._blackbox is None else "ask again in a second"
            raise NotFoundError(f"nothing is recorded of worker {worker.name} (pid {worker.pid})", remedy=remedy)
        return track

    def recorded(self, worker: Worker, names: Sequence[str]) -> Recorded:
        """What is recorded of a worker under these names of fields, at the finest. Raises NotFoundError.

        From the recording as it is written, unchecked: an hour of it takes a third of the time that `recording` does.
        """
        track = self._track_of(worker)
        return Recorded(track.file.columns(0, ("time", *names)), track.file.header.process.get("started"))

    def _file_of(self, pid: int) -> Path | None:
        track = self._tracks.get(pid)
        return track.file.path if track else None

    def latest(self, pid: int) -> dict[str, float | None] | None:
        """The last reading of a worker by its fields' names, None for what is not known; None where it is not recorded."""
        track = self._tracks.get(pid)
        if track is None or track.latest is None:
            return None
        named = zip(FIELDS, track.latest, strict=True)
        return {field.name: None if math.isnan(value) else value for field, value in named}

    def outlook(self, pid: int) -> Outlook | None:
        """The outlook of a worker, at most a few seconds old; None where it is not recorded."""
        track = self._tracks.get(pid)
        if track is None:
            return None
        now = time.monotonic()
        if track.judged is None or now - track.judged[0] > _OUTLOOK_SECONDS:
            track.judged = (
                now,
                judge(
                    track.file.columns(0, COLUMNS), track.file.header.process.get("started"), self.lives(track.worker)
                ),
            )
        return track.judged[1]

    def lives(self, worker: str) -> tuple[Life, ...]:
        """The processes that had this worker's number before it and were replaced, the oldest first."""
        return self._lineage.lives(worker)

    async def lines_gained(
        self, pid: int, worker: str, since: float, *, shared: bool = True
    ) -> tuple[float, list[LineGrowth]] | None:
        """What each line of a worker's code has gained since the first look at or after that wall-clock time, and when that
        was; None where it is not known. Of a worker that is recycled, over its lives that had not ended by then.

        shared   as in `LineRecord.gained`
        """
        track = self._tracks.get(pid)
        started = track.file.header.process.get("started") if track is not None else None
        age = time.time() - started if isinstance(started, int | float) else None
        warm = 0.0 if age is None else warm_up_ends(time.time() - age, time.time())
        lives = self.lives(worker)
        earlier = [life.lines for life in lives if life.lines is not None and life.lines.ended >= since]
        return await self.lines.gained(pid, since, earlier if recycled(lives, age) else (), warm, shared=shared)

    async def _look_at(self, worker: Worker, look: ServiceLook) -> None:
        # In this order: a process on its way out has no memory any more, and the kernel shows it in the root cgroup.
        cgroup = self._cgroups.read(worker.pid)
        process = read_process(worker.pid)
        if process is None or process.rss_bytes == 0:
            return
        track = self._tracks.get(worker.pid) or self._begin(worker)
        if track is None:
            return
        track.saw(cgroup)
        sample = await self._ask(worker, process, track)
        served = await asyncio.to_thread(worker.served)
        told = (served.kernel_bytes, served.outgoing, served.connections) if served.ports else (None, None, None)
        kernel_bytes, outgoing, clients = told
        # The worker may have ended, and its recording with it, while its agent was asked.
        if self._tracks.get(worker.pid) is track:
            children = look.children_of(worker.name)
            own = look.own(worker.pid)
            if not look.fresh or look.time == self._last_look:  # what was read before is no reading of now
                own, children = None, replace(children, pss=None)
            track.add(vitals(time.time(), process, cgroup, kernel_bytes, sample, outgoing, clients, own, children))

    def _begin(self, worker: Worker) -> _WorkerTrack | None:
        identified = identity(worker.pid)
        if identified is None or self._blackbox is None:
            return None
        who, started = identified
        parent = parent_of(worker.pid)
        file = self._blackbox.open(who, started, worker.name, self._settings.rings, parent)
        earlier = earlier_lives(self._blackbox, worker.name, parent) if parent and not self.lives(worker.name) else []
        self._lineage.begun(worker.name, parent, earlier)
        self._endings.begun(worker.name)
        self._has_met_a_worker = True
        track = _WorkerTrack(who, worker.name, file, time.monotonic() + _MINUTE)
        self._tracks[worker.pid] = track
        return track

    async def _ask(self, worker: Worker, process: ProcessReading, track: _WorkerTrack) -> dict[str, Any] | None:
        if worker.socket is None or process.state == "T":
            return None
        if track.looks_unanswered % _SILENT_LOOKS:
            track.looks_unanswered += 1
            return None
        try:
            sample = await worker.ask("sample", patience=_PATIENCE_SECONDS)
        except DiagnosticsError:  # the record says so: agent_answers is 0
            track.looks_unanswered += 1
            return None
        track.looks_unanswered = 0
        return sample

    def _finish(self, pid: int) -> None:
        track = self._tracks.pop(pid)
        started = track.file.header.process.get("started")
        lines = self.lines.ended(pid, warm_up_ends(float(started or 0.0), time.time()))
        returncode = self._exits.pop(pid, None)
        status = exit_status(pid)
        if returncode is None and status is not None:
            returncode = os.waitstatus_to_exitcode(status)
        folder = track.cgroup.folder if track.cgroup else None
        killed = track.kills.since() if track.kills else None
        limit = track.cgroup.limit_bytes if track.cgroup else None
        used = track.cgroup.working_bytes if track.cgroup else None
        ending = Ending(time.time(), returncode, killed, str(folder) if folder else None, limit, used)
        track.close_minute()
        said = self.said(pid)
        track.file.write_end({**ending.to_json(), "verdict": said})
        self._endings.add(track.worker, pid, ending, said, track.file.path, lines)
        columns = track.file.columns(0, [field.name for field in FIELDS])
        life = life_of(columns, track.file.header.process.get("started"), JUDGED)
        if life is not None:
            self._lineage.ended(track.worker, replace(life, lines=lines))
        track.close()
        if returncode is None:
            self._ended[pid] = (track.file.path, ending)
            for forgotten in list(self._ended)[:-_REMEMBERED_ENDS]:
                del self._ended[forgotten]

    def _explain(self, path: Path, ending: Ending, returncode: int) -> None:
        explained = replace(ending, returncode=returncode)
        said = self._endings.explain(path, explained)
        try:
            with contextlib.closing(RingFile.reopen(path)) as file:
                file.write_end({**explained.to_json(), "verdict": said})
        except (OSError, DiagnosticsError) as error:  # tidied away, or damaged since
            log.warning("how %s ended is not written down: %s", path, error)
