"""Takes captures: one at a time for each worker, each with an estimate, progress, cancellation and a certain end.

The tracer window in the service is closed in every case: by the kind on success, by `window.end` on failure, and by the agent
itself if this process dies. A capture that cannot begin is refused with a reason, and is not kept; one that began is kept
however it ended, unless it was cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import BusyError, DiagnosticsError, NoRoomError, TooCostlyError, UsageError
from ..workers.targets import Targets, Worker
from .capture import Capture
from .cost.quote import Quote, quote
from .counts import CaptureCounts, Counting
from .group import CaptureGroup
from .kept.facts import facts_of
from .kept.store import Store, as_no_room
from .kinds import cheaper_than, kind_named
from .kinds.kind import Kind
from .reader import render

__all__ = ["Captures"]

log = logging.getLogger("diagnostics.monitor")

# How long the answer to the request waits for the window to open, so that it can be the error of a tracer that refuses.
_OPENING_SECONDS = 2.0
# What a process takes at least that makes an artifact of a profile.
_RENDERING_BYTES = 24 * 2**20
# Captures whose manifests could not be written because the disk was full: kept in memory.
_MAX_UNKEPT = 20
# Groups (captures of all workers) that are remembered; their captures are kept by the store.
_MAX_GROUPS = 20
# Windows of tracers are remembered for as long as there may be readings that they have spoiled: of hours, with one a minute.
_MAX_TRACED = 256


@dataclass(frozen=True, slots=True)
class Latest:
    """The last successful capture of one kind of one worker; `ended`: monotonic seconds."""

    id: str
    pid: int
    ended: float
    result: dict[str, Any]

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.ended


class Captures:
    """The controller of all captures, running ones and those in the store."""

    def __init__(self, targets: Targets, store: Store) -> None:
        self._targets = targets
        self.store = store
        self._running: dict[int, Capture] = {}
        self._unkept: deque[dict[str, Any]] = deque(maxlen=_MAX_UNKEPT)
        self._beginning = asyncio.Lock()
        self._latest: dict[tuple[str, str], Latest] = {}  # by worker and kind
        self._traced: deque[tuple[int, float, float]] = deque(maxlen=_MAX_TRACED)  # process, beginning, end
        self._counts = Counting()
        self._groups: deque[CaptureGroup] = deque(maxlen=_MAX_GROUPS)
        # Told of each capture once it is kept, with its manifest; it must return at once.
        self.published: Callable[[dict[str, Any]], None] = lambda manifest: None

    async def begin(self, request: dict[str, Any], *, yields: bool = False, by: str = "a request") -> dict[str, Any]:
        """Begin the requested capture and return its state, with its estimate.

        yields   begun automatically: it is cancelled where a user then requests one of the same worker
        by       who asks, for the manifest: "rule NAME", "the verdict", or "a request"
        The worker "all" begins a group: every worker's capture, one after the other, see `CaptureGroup.to_json`.
        Raises UsageError (kind, option), NotFoundError (worker), BusyError (naming the running capture, or another tracer),
        TooCostlyError (with the estimate), NoRoomError, TargetError (the service cannot do this).
        """
        given = dict(request)
        kind = kind_named(given.pop("kind", None))
        worker_name, force = given.pop("worker", None), given.pop("force", False)
        if worker_name is not None and not isinstance(worker_name, str):
            raise UsageError(f"worker is {worker_name!r}", remedy='write the worker\'s name as a string, such as "0"')
        if not isinstance(force, bool):
            raise UsageError(f"force is {force!r}", remedy="choose true or false")
        options = kind.checked(given)
        self._check_diff(kind.name, options)
        if worker_name == "all":
            return self._begin_all(kind, {**given, "force": force})
        worker = self._targets.worker(worker_name)
        try:
            self._must_be_free(worker, yields)
            async with self._beginning:
                self._must_be_free(worker, yields)
                capture = await self._start(kind, worker, options, force, yields, by)
        except (BusyError, TooCostlyError, NoRoomError):
            self._counts.refused(worker.name, kind.name)
            raise
        try:
            await _opened(capture)
        except asyncio.CancelledError:  # the client left before it had the capture's id
            await self.remove(capture.id)
            raise
        if capture.failure is not None and not capture.opened.is_set():
            raise capture.failure
        capture.opened.set()  # answered: from here on the capture is kept, however it ends
        return capture.to_json()

    def _begin_all(self, kind: Kind, request: dict[str, Any]) -> dict[str, Any]:
        running = next((group for group in self._groups if group.state == "running"), None)
        if running is not None:
            raise BusyError(
                f"{running.id} takes captures of all workers",
                remedy=f"wait for it, or DELETE /debug/memory/captures/{running.id}",
                running=running.id,
            )
        self._targets.worker(None)  # raises where there is none with an agent
        group = CaptureGroup(f"all-{self.store.name(kind.name)}", kind.name, request, self._targets.workers())
        group.task = asyncio.create_task(group.run(self), name=f"captures {group.id}")
        self._groups.append(group)
        return group.to_json(self)

    async def _start(
        self, kind: Kind, worker: Worker, options: dict[str, Any], force: bool, yields: bool, by: str
    ) -> Capture:
        await kind.ready(worker)
        price = await quote(worker, kind.method(options))
        if not force:
            cheaper = await _cheaper(kind, options, worker, price) if price.refusal else []
            price.refuse(f"a {kind.name} capture of worker {worker.name}", cheaper)
        if (running := self._running.get(worker.pid)) is not None and running.yields:
            await self.remove(running.id)
        capture_id, folder = self.store.new(kind.name, price.cost.disk_bytes)
        workers = tuple(one.name for one in self._targets.workers())
        capture = Capture(
            capture_id,
            kind,
            worker,
            options,
            folder,
            price,
            forced=price.refusal,
            workers=workers,
            yields=yields,
            by=by,
        )
        self._running[worker.pid] = capture
        capture.task = asyncio.create_task(self._take(capture), name=f"capture {capture_id}")
        return capture

    def find(self, capture_id: str) -> dict[str, Any]:
        """A running or kept capture, or a group, as JSON. Raises NotFoundError."""
        group = self._group(capture_id)
        if group is not None:
            return group.to_json(self)
        capture = self._running_one(capture_id)
        if capture is not None:
            return capture.to_json()
        lost = next((manifest for manifest in self._unkept if manifest["id"] == capture_id), None)
        return lost or self.store.manifest(capture_id)

    def all(self) -> list[dict[str, Any]]:
        """All captures as JSON: running ones first, then those kept, newest first."""
        running = [capture.to_json() for capture in self._running.values()]
        return running + list(self._unkept) + self.store.manifests()

    async def ended(self, capture_id: str) -> dict[str, Any]:
        """Wait until the capture has ended and return it as JSON. Raises NotFoundError, also for a cancelled one."""
        capture = self._running_one(capture_id)
        if capture is not None and capture.task is not None:
            await asyncio.wait([capture.task])
        return self.find(capture_id)

    def latest(self, worker: str, pid: int, kind: str, max_age: float = math.inf) -> dict[str, Any] | None:
        """The result of the last capture of this kind of this worker; None where there is none of process `pid`.

        max_age   seconds since the capture's end
        """
        last = self.latest_capture(worker, pid, kind)
        return last.result if last is not None and last.age_seconds <= max_age else None

    def latest_capture(self, worker: str, pid: int, kind: str) -> Latest | None:
        """As `latest`, with the capture's id and age."""
        last = self._latest.get((worker, kind))
        return last if last is not None and last.pid == pid else None

    def disturbs(self, pid: int) -> bool:
        """Whether a capture of this process runs now."""
        return pid in self._running

    def traced(self, pid: int | None = None) -> list[tuple[float, float]]:
        """(beginning, end) of each capture with a tracer in this process, in order of time; seconds since the epoch.

        Of one that runs the end is infinity. None: in any process of the service, where those that overlap are one.
        """
        ended = [(begin, end) for of, begin, end in self._traced if pid in (None, of)]
        runs = [
            (capture.created, math.inf)
            for of, capture in self._running.items()
            if pid in (None, of) and _traces(capture)
        ]
        apart: list[tuple[float, float]] = []
        for begin, end in sorted(ended + runs):
            if apart and begin <= apart[-1][1]:
                apart[-1] = apart[-1][0], max(apart[-1][1], end)
            else:
                apart.append((begin, end))
        return apart

    def counts_of(self, worker: str) -> CaptureCounts:
        """Counts of a worker's captures by outcome, for the metrics."""
        return self._counts.of(worker, self.store.kept_bytes().get(worker, 0))

    async def remove(self, capture_id: str) -> None:
        """Cancel a running capture, delete a kept one; of a group cancel the rest. Raises NotFoundError."""
        group = self._group(capture_id)
        if group is not None:
            assert group.task is not None
            group.task.cancel()
            await asyncio.wait([group.task])
            return
        capture = self._running_one(capture_id)
        if capture is None:
            self.store.delete(capture_id)
        elif capture.task is not None:
            capture.task.cancel()
            await asyncio.wait([capture.task])

    async def close(self) -> None:
        """Cancel all running captures; their windows in the service are closed before this returns."""
        for group in self._groups:
            await self.remove(group.id)
        for capture in list(self._running.values()):
            await self.remove(capture.id)

    def comparable(self, after: str, before: str) -> None:
        """Raises UsageError unless both captures have profiles of the same sample types, NotFoundError."""
        types = []
        for capture_id in (after, before):
            self.store.artifact(capture_id, "profile.json")
            types.append((self.store.manifest(capture_id)["result"] or {}).get("sample_types"))
        if types[0] != types[1]:
            raise UsageError(
                f"captures {after} and {before} count different things: {types[0]} and {types[1]}",
                remedy="compare captures of one kind and view",
            )

    def _check_diff(self, kind: str, options: dict[str, Any]) -> None:
        other = options.get("diff")
        if other is None:
            return
        self.store.artifact(other, "profile.json")  # raises for a broken one
        earlier = self.store.manifest(other)
        if (earlier["kind"], earlier["options"].get("view")) != (kind, options.get("view")):
            raise UsageError(
                f"diff names {other}, a {earlier['kind']} capture of other options",
                remedy=f"name an earlier {kind} capture of the same view",
            )

    def _must_be_free(self, worker: Worker, yields: bool) -> None:
        running = self._running.get(worker.pid)
        if running is not None and (yields or not running.yields):
            raise BusyError(
                f"capture {running.id} is {running.state} on worker {worker.name}",
                remedy=f"wait for it, or DELETE /debug/memory/captures/{running.id}",
                running=running.id,
            )

    def _group(self, group_id: str) -> CaptureGroup | None:
        return next((group for group in self._groups if group.id == group_id), None)

    def _running_one(self, capture_id: str) -> Capture | None:
        return next((capture for capture in self._running.values() if capture.id == capture_id), None)

    async def _take(self, capture: Capture) -> None:
        try:
            capture.state = "running"
            capture.facts = facts_of(capture.worker.pid, await capture.worker.ask("hello"))
            with as_no_room(capture.folder):
                capture.result = await capture.kind.take(capture.session())
                await _finish(self.store, capture)
            capture.state, capture.progress = "done", 1.0
            latest = Latest(capture.id, capture.worker.pid, time.monotonic(), capture.result)
            self._latest[capture.worker.name, capture.kind.name] = latest
        except asyncio.CancelledError:
            capture.state = "cancelled"
            await self._close_window(capture)
        except DiagnosticsError as error:
            self._failed(capture, error)
            await self._close_window(capture)
        except Exception as error:
            # A defect of ours: the capture must end as failed, or its clients wait for ever.
            log.exception("capture %s failed", capture.id)
            self._failed(capture, DiagnosticsError(f"{type(error).__name__}: {error}", code="internal"))
            await self._close_window(capture)
        finally:
            await capture.close()
            self._end(capture)

    def _failed(self, capture: Capture, error: DiagnosticsError) -> None:
        capture.state, capture.failure, capture.error = "failed", error, error.to_dict()
        if isinstance(error, NoRoomError):
            self.store.empty(capture.id)

    def _end(self, capture: Capture) -> None:
        took = time.monotonic() - capture.began
        self._counts.ended(capture.worker.name, capture.kind.name, capture.state, took)
        try:
            if capture.state == "cancelled" or not (capture.opened.is_set() or capture.state == "done"):
                self.store.discard(capture.id)
            else:
                self.published(self.store.publish(capture.id, capture.to_json()))
        except (DiagnosticsError, OSError, ValueError, TypeError) as error:
            log.error("capture %s could not be kept: %s", capture.id, error)
            self._unkept.append(
                {**capture.to_json(), "state": "failed", "error": _error_json(error), "result": None, "artifacts": []}
            )
            self.store.discard(capture.id)
        finally:
            if _traces(capture):
                self._traced.append((capture.worker.pid, capture.created, time.time()))
            del self._running[capture.worker.pid]

    async def _close_window(self, capture: Capture) -> None:
        # Where the worker does not answer, its agent closes the window at the deadline.
        with contextlib.suppress(DiagnosticsError):
            await capture.worker.ask("window.end", patience=10.0)


def _traces(capture: Capture) -> bool:
    return capture.kind.method(capture.options).tracer is not None


async def _cheaper(kind: Kind, options: dict[str, Any], worker: Worker, price: Quote) -> list[tuple[str, Quote]]:
    """Captures of this worker that may be cheaper: (command line, estimate from the same readings)."""
    cheaper = []
    for command, other, method in cheaper_than(kind, options):
        with contextlib.suppress(UsageError):  # this worker cannot be captured by that kind: it has no memray
            await other.ready(worker)
            cheaper.append((command, price.with_method(method)))
    return cheaper


async def _opened(capture: Capture) -> None:
    """Wait until the window is open or the capture has ended, at most `_OPENING_SECONDS`."""
    assert capture.task is not None
    opened = asyncio.create_task(capture.opened.wait())
    try:
        waiting: list[asyncio.Task[Any]] = [opened, capture.task]
        await asyncio.wait(waiting, timeout=_OPENING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        opened.cancel()


async def _finish(store: Store, capture: Capture) -> None:
    """Make the artifacts of every capture with a profile: pprof, a flame graph, a difference; then measure its cost."""
    profile = capture.folder / "profile.json"
    missing = []
    if profile.exists():
        capture.session().enter("rendering")
        for name in ("profile.pb.gz", *(["flame.html"] if capture.options.get("render", True) else [])):
            made = capture.folder / name
            convert = ("-m", "diagnostics", "convert", str(profile), str(made))
            missing.append(await render(made, *convert, needs_bytes=_RENDERING_BYTES))
        other = capture.options.get("diff")
        if other is not None:
            before = str(store.artifact(other, "profile.json"))
            made = capture.folder / "diff.json"
            compare = ("-m", "diagnostics.monitor.captures.difference", str(profile), before)
            missing.append(await render(made, *compare, needs_bytes=_RENDERING_BYTES, output=made))
    assert capture.result is not None
    if any(missing):
        capture.result["not_covered"] = [*capture.result.get("not_covered", ()), *filter(None, missing)]
    capture.result["cut_short"] = capture.cut_short
    capture.result["measured"] = await capture.measured()


def _error_json(error: Exception) -> dict[str, Any]:
    if isinstance(error, DiagnosticsError):
        return error.to_dict()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space, or set DIAGNOSTICS_DIR to another disk"
        return {"code": "no_room", "message": str(error), "remedy": remedy}
    return {"code": "internal", "message": f"it could not be kept: {error}", "remedy": "take it again"}
