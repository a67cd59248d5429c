"""Takes captures: one at a time for each worker, with progress, a way to cancel, and an end in every case.

A capture is pending, running, rendering, and then done, failed or cancelled. Whatever happens, the tracer window in the
service is closed: by the kind when it goes well, by `window.end` when it does not, and by the agent itself should this
process die.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BusyError, DiagnosticsError, UsageError
from .kinds import kind_named
from .kinds.base import Kind, Session
from .store import Store, as_no_room
from .targets import Targets, Worker

__all__ = ["Capture", "Captures"]

log = logging.getLogger("diagnostics.monitor")

_PROGRESS_SECONDS = 0.1


@dataclass
class Capture:
    """One capture that is being taken. Times are wall clock, seconds since the epoch."""

    id: str
    kind: Kind
    worker: Worker
    options: dict[str, Any]
    folder: Path
    created: float = field(default_factory=time.time)
    state: str = "pending"
    progress: float = 0.0
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    task: asyncio.Task[None] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind.name,
            "worker": self.worker.name,
            "pid": self.worker.pid,
            "options": self.options,
            "created": self.created,
            "state": self.state,
            "progress": round(self.progress, 3),
            "error": self.error,
            "result": self.result,
            "artifacts": [],
        }


class Captures:
    """The controller: what runs now, and what the store keeps."""

    def __init__(self, targets: Targets, store: Store) -> None:
        self._targets = targets
        self.store = store
        self._running: dict[int, Capture] = {}
        self._latest: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}  # (worker, kind) -> pid and result
        self.outcomes: Counter[tuple[str, str, str]] = Counter()  # (worker, kind, outcome) -> how many

    def begin(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start what the request asks for and return the capture as it is now.

        Raises UsageError (kind, option), NotFoundError (worker), BusyError (naming the one that runs), NoRoomError.
        """
        given = dict(request)
        kind = kind_named(given.pop("kind", None))
        worker_name = given.pop("worker", None)
        if worker_name is not None and not isinstance(worker_name, str):
            raise UsageError(f"worker is {worker_name!r}", remedy='write the worker\'s name as a string, such as "0"')
        options = kind.checked(given)
        worker = self._targets.worker(worker_name)
        running = self._running.get(worker.pid)
        if running is not None:
            raise BusyError(
                f"capture {running.id} is {running.state} on worker {worker.name}",
                remedy=f"wait for it, or DELETE /debug/memory/captures/{running.id}",
                running=running.id,
            )
        capture_id, folder = self.store.new(kind.name)
        capture = Capture(capture_id, kind, worker, options, folder)
        self._running[worker.pid] = capture
        capture.task = asyncio.create_task(self._take(capture), name=f"capture {capture_id}")
        return capture.to_json()

    def find(self, capture_id: str) -> dict[str, Any]:
        """A capture that runs or is kept. Raises NotFoundError."""
        capture = self._running_one(capture_id)
        return capture.to_json() if capture else self.store.manifest(capture_id)

    def all(self) -> list[dict[str, Any]]:
        """Running ones first, then those kept, newest first."""
        return [capture.to_json() for capture in self._running.values()] + self.store.manifests()

    def latest(self, worker: str, pid: int, kind: str) -> dict[str, Any] | None:
        """The last result of this kind from this worker, unless another process has its number now."""
        captured_pid, result = self._latest.get((worker, kind), (None, None))
        return result if captured_pid == pid else None

    async def remove(self, capture_id: str) -> None:
        """Cancel a capture that runs, delete one that is kept. Raises NotFoundError."""
        capture = self._running_one(capture_id)
        if capture is None:
            self.store.delete(capture_id)
        elif capture.task is not None:
            capture.task.cancel()
            await asyncio.wait([capture.task])

    async def close(self) -> None:
        """Cancel what runs; the service's windows are closed before this returns."""
        for capture in list(self._running.values()):
            await self.remove(capture.id)

    def _running_one(self, capture_id: str) -> Capture | None:
        return next((capture for capture in self._running.values() if capture.id == capture_id), None)

    async def _take(self, capture: Capture) -> None:
        try:
            capture.state = "running"
            session = Session(
                worker=capture.worker,
                folder=capture.folder,
                options=capture.options,
                enter=lambda phase: setattr(capture, "state", phase),
                wait=lambda window: _wait(capture, window),
            )
            with as_no_room(capture.folder):
                capture.result = await capture.kind.take(session)
            capture.state, capture.progress = "done", 1.0
            self._latest[capture.worker.name, capture.kind.name] = (capture.worker.pid, capture.result)
        except asyncio.CancelledError:
            capture.state = "cancelled"
            await self._close_window(capture)
        except DiagnosticsError as error:
            capture.state, capture.error = "failed", error.to_dict()
            await self._close_window(capture)
        except Exception as error:
            # A defect of ours: the capture must say so, or whoever waits for it waits for ever.
            log.exception("capture %s failed", capture.id)
            capture.state = "failed"
            capture.error = {"code": "internal", "message": f"{type(error).__name__}: {error}", "remedy": ""}
            await self._close_window(capture)
        finally:
            self._end(capture)

    def _end(self, capture: Capture) -> None:
        self.outcomes[capture.worker.name, capture.kind.name, capture.state] += 1
        try:
            if capture.state == "cancelled":
                self.store.discard(capture.id)
            else:
                self.store.publish(capture.id, capture.to_json())
        except (DiagnosticsError, OSError) as error:
            log.error("capture %s could not be kept: %s", capture.id, error)
            self.store.discard(capture.id)
        finally:
            del self._running[capture.worker.pid]

    async def _close_window(self, capture: Capture) -> None:
        # The worker may be the reason why the capture failed. Its agent closes the window at the deadline then.
        with contextlib.suppress(DiagnosticsError):
            await capture.worker.ask("window.end", patience=10.0)


async def _wait(capture: Capture, window: float) -> None:
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < window:
        capture.progress = elapsed / window
        await asyncio.sleep(min(_PROGRESS_SECONDS, window - elapsed))
