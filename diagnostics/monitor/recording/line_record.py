"""The recorder's looks at live heaps: what each line of a worker's code holds, over time, in memory that does not grow.

The table is read where it lies (`live_heap.py`): the service is not asked, and so a look works while it is blocked or stopped.
A look is taken at every fifth reading of the recorder's, or so much more seldom that all of a worker's take at most half a per
cent of a core. Those of the last quarter of an hour are kept, and of the day before one a minute; each has the hundred lines
that hold most.

Twice a minute what matters of it is written beside the worker's recording (`analysis/lines/file.py`), for when the service and
this monitor are killed together. When a worker has ended, what its lines gained is written there too (`life_file.py`): of one
that is recycled all lives are told together, and a monitor that is started anew is to know them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from ...analysis.heap import HeapTable
from ...analysis.lines import file as line_file
from ...analysis.lines import life_file
from ...analysis.lines.growth import History, LineGrowth
from ...analysis.lines.lives import LineLife, life_of, pooled
from ...analysis.lines.snapshot import Blocks, Look, Names
from ...analysis.profile import Frame
from ...errors import UsageError
from ..failures import Failures
from ..workers.targets import Worker
from . import live_heap

__all__ = ["LineRecord", "history_of", "is_ours", "line_life_beside", "line_life_file", "lines_file"]

log = logging.getLogger("diagnostics.monitor")

T = TypeVar("T")

# In readings of the recorder: from one look to the next, and how long a block must have lived to count.
_EVERY, _LASTING = 5.0, 10.0
# A look that takes so long of a core is followed by so many times as long without one.
_REST: Final = 200.0
_FINE, _MINUTES = 180, 1440
_MINUTE: Final = 60.0
_WRITE_SECONDS: Final = 30.0
# Processes that are no workers any more, and whose end the recorder has not noticed yet.
_MOST_LEAVING: Final = 64


def lines_file(recording: Path) -> Path:
    """Where the lines of this recording's worker are kept."""
    return recording.with_suffix(".lines")


def line_life_file(recording: Path) -> Path:
    """Where is kept what the lines of this recording's worker gained, once it has ended."""
    return recording.with_suffix(".life")


@cache
def _own_files() -> frozenset[str]:
    """The files of ours that a service may have in its stacks, by their paths in this package."""
    package = Path(live_heap.__file__).parents[2]
    files = [package / "protocol.py", package / "errors.py", *(package / "agent").rglob("*.py")]
    return frozenset(path.relative_to(package).as_posix() for path in files)


def is_ours(frame: Frame) -> bool:
    """Whether a frame is of the agent's code, from wherever that was loaded."""
    return frame.file.rpartition("/diagnostics/")[2] in _own_files()


class _LineTrack:
    """One worker's looks, of one table. `pid` as the process sees itself; `begun`: when sampling began, wall clock."""

    def __init__(self, table: HeapTable, lasting: float) -> None:
        self.lasting = lasting
        self.pid, self.begun = table.pid, table.started
        self.file: Path | None = None
        self.names = Names(is_ours)
        self.fine: deque[Look] = deque(maxlen=_FINE)
        self.minutes: deque[Look] = deque(maxlen=_MINUTES)
        self.now: Blocks | None = None
        self.gains: tuple[Blocks, tuple[float, list[LineGrowth]] | None] | None = None
        self.wrote = time.monotonic()
        # The process counts on the monotonic clock; the wall clock tells once how long ago that began.
        self.zero = time.monotonic() - max(0.0, time.time() - table.started)

    def of(self, table: HeapTable) -> bool:
        return (self.pid, self.begun) == (table.pid, table.started)

    def goes_on(self, file: Path) -> None:
        """Write there from now on, and take up what an earlier monitor of this worker has left."""
        self.file = file
        names = Names(is_ours)
        try:
            left = line_file.parse(_text(file, line_file.MAX_BYTES), names)
        except (UsageError, OSError):  # none yet, or damaged: it begins anew
            return
        if (left.pid, left.started, left.lasting) == (self.pid, self.begun, self.lasting) and not self.fine:
            self.names = names
            self.minutes.extend(left.looks)

    def add(self, blocks: Blocks, look: Look) -> None:
        self.now = blocks
        self.fine.append(look)
        if not self.minutes or look.at - self.minutes[-1].at >= _MINUTE:
            self.minutes.append(look)

    def looks(self) -> tuple[Look, ...]:
        first = self.fine[0].at if self.fine else 0.0
        return (*(look for look in self.minutes if look.at < first), *self.fine)


class LineRecord:
    """The looks at all workers; `run` until cancelled.

    workers    tells those that there are
    interval   seconds from one reading of the recorder's to the next
    file_of    where a worker's recording is, by its pid; None while there is none, or where it is in memory alone
    """

    def __init__(
        self, workers: Callable[[], Sequence[Worker]], interval: float, file_of: Callable[[int], Path | None]
    ) -> None:
        self._workers = workers
        self._interval = interval
        self._file_of = file_of
        self._tracks: dict[int, _LineTrack] = {}
        self._leaving: dict[int, _LineTrack] = {}
        self._due: dict[int, float] = {}
        self._unwritable: set[Path] = set()

    async def run(self) -> None:
        """Look at each worker when it is due, for ever. A look that fails is counted and logged; the next one is due."""
        failures = Failures("a look at a live heap")
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is logged, and the next look is due
                failures.failed(error)
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Look at those workers that are due."""
        workers = self._workers()
        alive = {worker.pid for worker in workers}
        self._due = {pid: due for pid, due in self._due.items() if pid in alive}
        for pid in self._tracks.keys() - alive:
            self._leave(pid)
        for worker in workers:
            if time.monotonic() >= self._due.get(worker.pid, 0.0):
                took = await self._look_at(worker)
                self._due[worker.pid] = time.monotonic() + max(_EVERY * self._interval, _REST * took)

    def history(self, pid: int) -> History | None:
        """What is known of a worker's lines; None where it keeps no live heap, or nobody has looked yet."""
        track = self._tracks.get(pid)
        if track is None or track.now is None:
            return None
        looks = track.looks()
        return History(track.names, looks, track.now, looks[-1].time, track.lasting)

    async def gained(
        self, pid: int, since: float, earlier: Sequence[LineLife] = (), warm: float = 0.0, *, shared: bool = True
    ) -> tuple[float, list[LineGrowth]] | None:
        """When the first look since that wall-clock time was, and what each line has gained from then on, most first; None
        where that is not known.

        shared    it is worked out once for each look, whatever `since` is the second time
        earlier   lives of the processes that were replaced by this one: what lines gained is then told of all of them together
        warm      when the warm-up of this one ended, which is left out then
        """
        track, history = self._tracks.get(pid), self.history(pid)
        if track is None or history is None:  # one that has just begun: its predecessors are known all the same
            return (earlier[0].began, await asyncio.to_thread(pooled, earlier)) if earlier else None
        if not shared:
            return await asyncio.to_thread(_gained, history, since, earlier, warm)
        if track.gains is None or track.gains[0] is not history.now:
            track.gains = history.now, await asyncio.to_thread(_gained, history, since, earlier, warm)
        return track.gains[1]

    def ended(self, pid: int, warm: float = 0.0) -> LineLife | None:
        """A worker has ended: its looks stay in its file alone. Answers what its lines gained since `warm`, when its warm-up
        was over; None where it is not known."""
        track = self._leave(pid)
        self._leaving.pop(pid, None)
        if track is None or track.now is None:
            return None
        looks = track.looks()
        history = History(track.names, looks, track.now, looks[-1].time, track.lasting)
        life = life_of(history, warm)
        if life is not None and track.file is not None:
            self._replace(track.file.with_suffix(".life"), life_file.written(life))
        return life

    def close(self) -> None:
        for pid in list(self._tracks):
            self._leave(pid)
        self._leaving.clear()

    def _leave(self, pid: int) -> _LineTrack | None:
        """A process is no worker any more: what was seen of it is written, and kept until its end is noticed."""
        track = self._tracks.pop(pid, None)
        if track is None:
            return self._leaving.get(pid)
        self._write(track, track.looks())
        self._leaving[pid] = track
        for oldest in list(self._leaving)[:-_MOST_LEAVING]:
            del self._leaving[oldest]
        return track

    async def _look_at(self, worker: Worker) -> float:
        """The seconds of CPU that it took."""
        took, table = await asyncio.to_thread(_timed, live_heap.of_worker, worker)
        track = self._tracks.get(worker.pid)
        if table is None:
            if track is not None:
                track.now = None  # what is alive now is not known; what was stays
            return took
        if track is None or not track.of(table):
            track = self._tracks[worker.pid] = _LineTrack(table, _LASTING * self._interval)
        recording = self._file_of(worker.pid)
        if track.file is None and recording is not None:
            track.goes_on(lines_file(recording))
        at = time.monotonic() - track.zero
        more, (blocks, look) = await asyncio.to_thread(_timed, _seen, table, track.names, at, track.lasting)
        track.add(blocks, look)
        if time.monotonic() - track.wrote >= _WRITE_SECONDS:
            await asyncio.to_thread(self._write, track, track.looks())
        return took + more

    def _write(self, track: _LineTrack, looks: tuple[Look, ...]) -> None:
        """In one piece, or not at all: what was written before stays where there is no room for more."""
        track.wrote = time.monotonic()
        if track.file is None or not looks:
            return
        self._replace(track.file, line_file.written(track.pid, track.begun, track.lasting, track.names, looks))

    def _replace(self, path: Path, text: str) -> None:
        half = path.with_name(f"{path.name}.new")
        try:
            with open(half, "w", encoding="utf-8", opener=_private) as file:
                file.write(text)
            half.replace(path)
        except OSError as error:
            half.unlink(missing_ok=True)
            if path not in self._unwritable:
                self._unwritable.add(path)
                log.warning("the growth of lines is kept in memory only: %s: %s", path, error.strerror or error)


def _timed(work: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """(seconds of CPU, result)."""
    began = time.thread_time()
    result = work(*arguments)
    return time.thread_time() - began, result


def _gained(
    history: History, since: float, earlier: Sequence[LineLife], warm: float
) -> tuple[float, list[LineGrowth]] | None:
    if earlier:
        return earlier[0].began, pooled(earlier, life_of(history, max(since, warm)))
    gained = history.since(since)
    return None if gained is None else (gained[0].time, gained[1])


def _seen(table: HeapTable, names: Names, at: float, lasting: float) -> tuple[Blocks, Look]:
    blocks = Blocks.of(table, names, at)
    return blocks, Look.of(blocks, time.time(), lasting)


def history_of(recording: Path, table: HeapTable) -> History | None:
    """What was recorded beside `recording` of a process, whose table is at hand; None where nothing was, or of another one.

    Raises UsageError where it is damaged, OSError where it cannot be read.
    """
    path = lines_file(recording)
    if not path.exists():
        return None
    names = Names(is_ours)
    left = line_file.parse(_text(path, line_file.MAX_BYTES), names)
    if (left.pid, left.started) != (table.pid, table.started) or not left.looks:
        return None
    # The last look tells what the wall clock was at a time of the table's own.
    last = left.looks[-1]
    at = max(last.at, table.updated - last.time + last.at)
    return History(names, left.looks, Blocks.of(table, names, at), max(last.time, table.updated), left.lasting)


def line_life_beside(recording: Path) -> LineLife | None:
    """What the lines of this recording's worker gained in its life, which is over; None where that is not known."""
    path = line_life_file(recording)
    try:
        return life_file.parse(_text(path, life_file.MAX_BYTES))
    except FileNotFoundError:
        return None
    except (UsageError, OSError) as error:
        log.warning("what lines gained in an earlier life is not known: %s: %s", path, error)
        return None


def _text(path: Path, most: int) -> str:
    if path.stat().st_size > most:
        raise UsageError(f"{path} is larger than any file of lines")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
