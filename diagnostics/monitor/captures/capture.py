"""One capture while it is taken: its state, the watch over its window, and its measured cost.

A capture is pending, running, rendering, and then done, failed or cancelled.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DiagnosticsError, TargetSilentError
from ..kernel.process import read_process
from ..workers.targets import Worker
from .cost.pace import Mark, Pace, between, busy_share, mark, measure
from .cost.quote import Quote
from .cost.watch import LOOK_SECONDS, WindowWatch
from .kinds.kind import Kind, Session

__all__ = ["Capture"]

_PROGRESS_SECONDS = 0.1
# Seconds to wait for an agent's answer during a window; none in this time means that the service is stalled.
_LOOK_PATIENCE_SECONDS = 1.0
_AFTER_SECONDS = 1.0
_DEFAULT_MAX_LAG_MS = 1000.0


@dataclass
class Capture:
    """One capture of one worker. Times are wall-clock seconds since the epoch, except `began`, which is monotonic.

    quote        its estimated cost
    forced       the reason to refuse that "force" has overridden, None where there was none
    workers      the names of all workers at its beginning
    facts        versions, command line and revision of the service
    opened       set once the window is open or the capture has ended: the request that began it is answered then
    cut_short    why its window was ended early, None where it was not
    yields       whether it was begun automatically: it is cancelled for a capture that a user requests
    by           who asked for it: "rule NAME", "the verdict", or "a request"
    """

    id: str
    kind: Kind
    worker: Worker
    options: dict[str, Any]
    folder: Path
    quote: Quote
    forced: str | None = None
    workers: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    state: str = "pending"
    progress: float = 0.0
    failure: DiagnosticsError | None = None
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    task: asyncio.Task[None] | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    cut_short: str | None = None
    yields: bool = False
    by: str = "a request"

    def __post_init__(self) -> None:
        # A forced capture of a busy service is not ended because it is busy; the loop's lag still ends the window.
        self._watch = WindowWatch(
            self.options.get("max_lag_ms", _DEFAULT_MAX_LAG_MS),
            judge_load=self.forced is None and not self.quote.cost.no_rest,
        )
        self._during: Pace | None = None
        self._after: asyncio.Task[Pace] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind.name,
            "worker": self.worker.name,
            "pid": self.worker.pid,
            "workers": list(self.workers),
            "options": self.options,
            "by": self.by,
            "created": self.created,
            "state": self.state,
            "progress": round(self.progress, 3),
            "estimate": self.quote.to_json(),
            "forced": self.forced is not None,
            "forced_over": self.forced,
            **self.facts,
            "error": self.error,
            "result": self.result,
            "artifacts": [],
        }

    def session(self) -> Session:
        return Session(
            worker=self.worker, folder=self.folder, options=self.options, enter=self._enter, wait=self._through_window
        )

    async def measured(self) -> dict[str, Any]:
        """The measured cost: milliseconds, bytes, CPU shares of one core, events a second; None for unknown figures."""
        answer = await self._watch_answer() or {}
        method = self.quote.method
        fork = answer.get("last_fork") if method.forks else None
        ending = answer.get("last_ending_seconds") if method.tracer else None
        fork_ms = 1000 * fork["fork_seconds"] if fork else 0.0
        ending_ms = 1000 * ending if ending is not None else 0.0
        if method.tracer:
            self._watch.note_lag(answer or None)
        after = await self._after if self._after else None
        before, during = self.quote.pace, self._during
        paces = {"before": before, "during": during, "after": after}
        return {
            "stall_ms": round(fork_ms + ending_ms, 2) if answer else None,
            "fork_ms": round(fork_ms, 2) if answer else None,
            "ending_ms": round(ending_ms, 2) if answer else None,
            "max_lag_ms": self._watch.max_lag_ms if method.tracer else None,
            "cpu_share": {when: pace.cpu_share if pace else None for when, pace in paces.items()},
            "events_per_second": {when: pace.events_per_second if pace else None for when, pace in paces.items()},
            "artifact_bytes": sum(path.stat().st_size for path in self.folder.iterdir()),
        }

    async def close(self) -> None:
        """Cancel the measuring task that runs beside the capture."""
        if self._after is not None and not self._after.done():
            self._after.cancel()
            await asyncio.wait([self._after])

    def _enter(self, phase: str) -> None:
        self.state = phase
        self.opened.set()
        if self._during is not None and self._after is None:
            self._after = asyncio.create_task(measure(self.worker, _AFTER_SECONDS), name=f"after {self.id}")

    async def _through_window(self, window: float) -> None:
        self.opened.set()
        if window <= 0:  # a reading of this moment has no window
            return
        first: Mark = await mark(self.worker)
        last, began = first, time.monotonic()
        next_look = began + LOOK_SECONDS
        while (elapsed := time.monotonic() - began) < window and self.cut_short is None:
            self.progress = elapsed / window
            await asyncio.sleep(min(_PROGRESS_SECONDS, window - elapsed))
            if self.quote.method.tracer and time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_SECONDS
                answer, now = await self._watch_answer(), await mark(self.worker)
                self.cut_short = self._watch.look(time.monotonic(), answer, busy_share(last, now))
                last = now
                if self.cut_short is not None and answer is None:
                    self._must_not_be_stopped()
        self._during = between(first, await mark(self.worker))

    def _must_not_be_stopped(self) -> None:
        """Raises TargetSilentError where the service's process is stopped (SIGSTOP), since it will never answer."""
        process = read_process(self.worker.pid)
        if process is not None and process.state in ("T", "t"):
            raise TargetSilentError(
                f"the service was stopped in the middle of the window (state {process.state}), so the window ended without a "
                "result",
                remedy="its agent closes the window as soon as it goes on (SIGCONT); then take the capture again",
            )

    async def _watch_answer(self) -> dict[str, Any] | None:
        """The agent's answer to `watch`; None where there is none in time. Raises TargetError if the agent is gone."""
        if self.worker.socket is None:
            return None
        try:
            return await self.worker.ask("window.watch", patience=_LOOK_PATIENCE_SECONDS)
        except TargetSilentError:
            return None
