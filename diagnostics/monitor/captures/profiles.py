"""Profiles for a scraper: windows that several askers share, and that are opened no more often than the service bears.

Continuous profilers ask for `heap` and `allocs` every few seconds, as Go answers them from counters that are always
kept. Here each is a tracer's window. So an answer younger than the minimum interval is given again, with its true
time; askers that come while a window is open wait for it together; and it is closed when the last of them has left.
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

# memray where it can be: whole stacks and function names for less than tracemalloc's five frames cost. `allocs` is what was
# allocated, freed or not, which only memray's full format knows; tracemalloc, with one frame, sees what is still held.
_BY_MEMRAY: dict[str, dict[str, Any]] = {
    "heap": {"kind": "memray"},
    "allocs": {"kind": "memray", "view": "allocated", "aggregated": False},
}
# Why memray cannot look into this service, or its file not be read, for which tracemalloc is taken instead.
_WITHOUT_MEMRAY = frozenset(
    {"memray_missing", "memray_unreadable", "rendering_failed", "tracker_active", "no_thread", "memray_failed"}
)

__all__ = ["Taken", "WindowProfiles"]


@dataclass(frozen=True)
class Taken:
    """A window's profile: as profile.proto in gzip, and as Profile JSON. `ended` is wall clock."""

    packed: bytes
    profile: bytes
    ended: float


@dataclass
class _Shared:
    task: asyncio.Task[Taken]
    askers: int = 0


class WindowProfiles:
    """The windows of all workers; `interval` in seconds, 0 for a new window at each asking."""

    def __init__(self, targets: Targets, captures: Captures, interval: float) -> None:
        self._targets = targets
        self._captures = captures
        self._interval = interval
        self._last: dict[tuple[int, str], Taken] = {}
        self._open: dict[tuple[int, str], _Shared] = {}
        self._turns: dict[int, asyncio.Lock] = {}

    def kept(self, name: str, worker: Worker) -> Taken | None:
        """The last one of this worker, however old it is."""
        self._forget_the_dead()
        return self._last.get((worker.pid, name))

    async def get(self, name: str, worker: Worker, *, seconds: float, collect: bool, force: bool) -> Taken:
        """The profile `name` (heap, allocs) of `worker`; cancel the call to leave.

        seconds   length of the window, where one is opened
        collect   run a garbage collection before it
        Raises what `Captures.begin` raises, TargetError where the window fails.
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
        # A scraper asks for heap and allocs at once: the second waits for its turn instead of being refused.
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
        """One capture, of which nothing is kept. Raises what `Captures.begin` raises, TargetError where the window fails."""
        begun = await self._captures.begin(request)
        try:
            capture = await self._captures.ended(begun["id"])
            if capture["state"] != "done":
                told = capture["error"] or {}
                raise TargetError(
                    f"the window {capture['state']}: {told.get('message', '')}",
                    remedy=told.get("remedy", ""),
                    code=told.get("code"),
                )
            packed = await self._artifact(begun["id"], "profile.pb.gz")
            profile = await self._artifact(begun["id"], "profile.json")
        finally:
            await self._removed(begun["id"])
        return Taken(packed, profile, time.time())

    async def _artifact(self, capture_id: str, name: str) -> bytes:
        return await asyncio.to_thread(self._captures.store.artifact(capture_id, name).read_bytes)

    async def _removed(self, capture_id: str) -> None:
        """Cancel it if it runs, and keep none of it: a scraper's windows would push an engineer's captures out."""
        try:
            await self._captures.remove(capture_id)
        except NotFoundError:  # cancelled through its own route meanwhile
            return

    def _forget_the_dead(self) -> None:
        alive = {worker.pid for worker in self._targets.workers()}
        self._last = {key: taken for key, taken in self._last.items() if key[0] in alive}
        self._turns = {pid: turn for pid, turn in self._turns.items() if pid in alive or turn.locked()}


def _noted(taken: Taken, note: str) -> Taken:
    """The same profile, which says in both its forms what it does not cover."""
    profile = Profile.from_json(json.loads(taken.profile))
    noted = replace(profile, not_covered=(note, *profile.not_covered))
    return Taken(pprof.encode(noted), json.dumps(noted.to_json()).encode(), taken.ended)
