"""The same capture of every worker of a service, one worker after the other.

Each is a capture of its own, with its own estimate, folder and artifacts; a group only begins them and lists them, with the
reason why a worker was left out. One after the other, since two at once would share the cores that one was estimated for.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...errors import DiagnosticsError, NotFoundError, TargetError
from ..workers.targets import Worker

__all__ = ["CaptureGroup"]


class CaptureTaker(Protocol):
    """The methods of `controller.Captures` that a group calls."""

    async def begin(self, request: dict[str, Any]) -> dict[str, Any]: ...

    async def ended(self, capture_id: str) -> dict[str, Any]: ...

    async def remove(self, capture_id: str) -> None: ...

    def find(self, capture_id: str) -> dict[str, Any]: ...


@dataclass
class CaptureGroup:
    """Captures of `workers`, begun with `request`; `captures` are the ids of those begun so far.

    not_taken   worker's name -> why it was left out, as an error's JSON
    """

    id: str
    kind: str
    request: dict[str, Any]
    workers: list[Worker]
    captures: list[str] = field(default_factory=list)
    not_taken: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    state: str = "running"
    task: asyncio.Task[None] | None = None

    async def run(self, captures: CaptureTaker) -> None:
        """Take them all. Where this is cancelled, the running capture is cancelled, too."""
        try:
            for worker in self.workers:
                await self._take(captures, worker)
            self.state = "done" if self.captures else "failed"
        except asyncio.CancelledError:
            self.state = "cancelled"
            raise

    async def _take(self, captures: CaptureTaker, worker: Worker) -> None:
        try:
            if worker.socket is None:
                raise TargetError(
                    f"worker {worker.name} (pid {worker.pid}) has no agent: it can be read from outside only",
                    code="no_agent",
                )
            begun = await captures.begin({**self.request, "kind": self.kind, "worker": worker.name})
        except DiagnosticsError as error:
            self.not_taken[worker.name] = error.to_dict()
            return
        self.captures.append(begun["id"])
        try:
            await captures.ended(begun["id"])
        except NotFoundError as error:  # that capture was cancelled
            self.captures.remove(begun["id"])
            self.not_taken[worker.name] = error.to_dict()
        except asyncio.CancelledError:
            await captures.remove(begun["id"])
            self.captures.remove(begun["id"])
            raise

    def to_json(self, captures: CaptureTaker) -> dict[str, Any]:
        """The group with the state of each capture, and the progress of all together."""
        members = []
        for capture_id in self.captures:
            try:
                members.append(captures.find(capture_id))
            except NotFoundError:  # deleted since
                continue
        ended = len(self.not_taken) + sum(capture["state"] in ("done", "failed") for capture in members)
        under_way = sum(capture["progress"] for capture in members if capture["state"] == "running")
        return {
            "id": self.id,
            "kind": self.kind,
            "worker": "all",
            "workers": [{"worker": worker.name, "pid": worker.pid} for worker in self.workers],
            "created": self.created,
            "state": self.state,
            "progress": round((ended + under_way) / max(1, len(self.workers)), 3),
            "captures": members,
            "not_taken": self.not_taken,
        }
