"""Profiles for scrapers: windows that several clients share, opened at most once in a minimum interval.

Continuous profilers request `heap` and `allocs` every few seconds, since Go keeps counters for them. Here each is a tracer's
window. So a profile younger than the minimum interval is returned again, with its true time; clients that come while a window
is open wait for it together; and it is closed when the last of them has left.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from typing import Any

from ...analysis.formats import pprof
from ...analysis.profile import Profile
from ...errors import DiagnosticsError, NotFoundError, TargetError
from ..workers.targets import Targets, Worker
from .controller import Captures

# memray where possible: whole stacks and function names for less CPU time than tracemalloc's five frames. `allocs` are all
# allocations, freed or not, which only memray's full format has; tracemalloc, with one frame, has the live ones only.
_BY_MEMRAY: dict[str, dict[str, Any]] = {
    "heap": {"kind": "memray"},
    "allocs": {"kind": "memray", "view": "allocated", "aggregated": False},
}
# Error codes of memray's absence or failure, for which tracemalloc is taken instead.
_WITHOUT_MEMRAY = frozenset(
    {"memray_missing", "memray_unreadable", "rendering_failed", "tracker_active", "no_thread", "memray_failed"}
)

__all__ = ["Taken", "WindowProfiles"]


@dataclass(frozen=True)
class Taken:
    """A window's profile, as gzipped profile.proto and as Profile JSON. `ended`: wall-clock seconds."""

    packed: bytes
    profile: bytes
    ended: float


@dataclass
class _Shared:
    task: asyncio.Task[Taken]
    askers: int = 0


class WindowProfiles:
    """The windows of all workers. `interval`: the minimum, in seconds; 0 opens a new window for each request."""

    def __init__(self, targets: Targets, captures: Captures, interval: float) -> None:
        self._targets = targets
        self._captures = captures
        self._interval = interval
        self._last: dict[tuple[int, str], Taken] = {}
        self._open: dict[tuple[int, str], _Shared] = {}
        self._turns: dict[int, asyncio.Lock] = {}

    def kept(self, name: str, worker: Worker) -> Taken | None:
        """This worker's last profile `name`, of any age; None where there is none."""
        self._forget_the_dead()
        return self._last.get((worker.pid, name))

    async def get(self, name: str, worker: Worker, *, seconds: float, collect: bool, force: bool) -> Taken:
        """The profile `name` (heap, allocs) of `worker`; cancel the call to leave.

        seconds   length of the window, where one is opened
        collect   run a garbage collection before it
        force     even where it would be too costly
        Raises as `Captures.begin` does, TargetError where the window fails.
        """
        self._forget_the_dead()
        key = (worker.pid, name)
        last = self._last.get(key)
        if last is not None and time.time() - last.ended < self._interval:
            return last
        shared = self._open.get(key)
        if shared is None:
            taking = self._take(name, worker, seconds, collect, force)
            shared = self._open[key] = _Shared(asyncio.create_task(taking, name=f"pprof {name}"))
        shared.askers += 1
        try:
            self._last[key] = taken = await asyncio.shield(shared.task)
            return taken
        finally:
            shared.askers -= 1
            if shared.askers == 0:
                if self._open.get(key) is shared:
                    del self._open[key]
                shared.task.cancel()
                await asyncio.wait([shared.task])

    async def _take(self, name: str, worker: Worker, seconds: float, collect: bool, force: bool) -> Taken:
        # A scraper requests heap and allocs at once: the second one waits instead of being refused as busy.
        async with self._turns.setdefault(worker.pid, asyncio.Lock()):
            if collect:
                await worker.ask("gc.collect", patience=30.0)
            options = {"seconds": seconds, "worker": worker.name, "force": force, "render": False}
            try:
                return await self._window({**_BY_MEMRAY[name], **options})
            except DiagnosticsError as error:
                if error.code not in _WITHOUT_MEMRAY:
                    raise
                taken = await self._window({"kind": "tracemalloc", "frames": 1, **options})
                return _noted(taken, f"what memray would have told: {error.message}; this is tracemalloc's")

    async def _window(self, request: dict[str, Any]) -> Taken:
        """Take one capture and delete it. Raises as `Captures.begin` does, TargetError where the window fails."""
        begun = await self._captures.begin(request)
        try:
            capture = await self._captures.ended(begun["id"])
            if capture["state"] != "done":
                error = capture["error"] or {}
                raise TargetError(
                    f"the window {capture['state']}: {error.get('message', '')}",
                    remedy=error.get("remedy", ""),
                    code=error.get("code"),
                )
            packed = await self._artifact(begun["id"], "profile.pb.gz")
            profile = await self._artifact(begun["id"], "profile.json")
        finally:
            await self._removed(begun["id"])
        return Taken(packed, profile, time.time())

    async def _artifact(self, capture_id: str, name: str) -> bytes:
        return await asyncio.to_thread(self._captures.store.artifact(capture_id, name).read_bytes)

    async def _removed(self, capture_id: str) -> None:
        """Cancel or delete the capture: kept ones of a scraper would push an engineer's out of the store."""
        try:
            await self._captures.remove(capture_id)
        except NotFoundError:  # removed meanwhile by another request
            return

    def _forget_the_dead(self) -> None:
        alive = {worker.pid for worker in self._targets.workers()}
        self._last = {key: taken for key, taken in self._last.items() if key[0] in alive}
        self._turns = {pid: turn for pid, turn in self._turns.items() if pid in alive or turn.locked()}


def _noted(taken: Taken, note: str) -> Taken:
    """The same profile with `note` among what it does not cover, in both formats."""
    profile = Profile.from_json(json.loads(taken.profile))
    noted = replace(profile, not_covered=(note, *profile.not_covered))
    return Taken(pprof.encode(noted), json.dumps(noted.to_json()).encode(), taken.ended)
