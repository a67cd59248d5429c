"""The workers of the service: who registered, who answers, what they said last.

A worker is a process. It is known by its agent's socket in the registry, or by its pid alone where no agent could be put
in; then it is read from outside only. Workers are numbered, and a number that a dead worker leaves is given to the next
one, so that the label `worker` has as few values as there are workers.

A process that only supervises workers (uvicorn's and gunicorn's parent, a shell) is none: it serves nothing, so it gets no
agent, and a command that `watch` names is shown itself only while no agent has registered in its family.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DiagnosticsError, NotFoundError, TargetError
from .balance import BalanceReader
from .connections import connections_of, streams_of
from .conversation import ask
from .family import Family, why_no_agent
from .outlook import Outlook
from .process import ProcessReading, alive, read_process
from .registry import registered_sockets
from .sockets import Served, Sockets
from .tally import Told

__all__ = ["Snapshot", "Targets", "Worker"]

# A reading takes milliseconds; an agent that needs longer than this is kept from running.
READING_PATIENCE_SECONDS = 2.0
# Several people and Prometheus may look at once: they share one reading of this age.
SHARED_SECONDS = 0.1


@dataclass(frozen=True)
class Snapshot:
    """One worker at one moment.

    state     answering; silent (alive, but its agent does not answer); outside (it has no agent)
    reading   what the agent said, None unless it is answering
    connections  as `connections_of` joins them
    last      what it said last, for a silent one, with its wall-clock time
    balance   where its memory is, see monitor.balance; None where the kernel does not answer
    outlook   what its recording says of its memory, where one was asked for
    firings   of rules, by (rule, outcome), where they were asked for
    captures  how those of this worker ended, where it was asked for
    """

    worker: str
    process: ProcessReading
    state: str
    reading: dict[str, Any] | None
    silent_since: float | None = None
    reason: str | None = None
    last: dict[str, Any] | None = None
    last_time: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    outlook: Outlook | None = None
    firings: dict[tuple[str, str], int] = field(default_factory=dict)
    captures: Told = field(default_factory=Told)
    connections: dict[str, Any] = field(default_factory=dict)
    balance: dict[str, Any] | None = None

    def streams(self) -> list[dict[str, Any]]:
        """The open streams that are known by themselves, as rows; see `streams_of`."""
        return streams_of(self.reading, self.connections)

    def to_json(self) -> dict[str, Any]:
        reading = self.reading or {}
        allocators = reading.get("allocators", {})
        keys = ("in_use_bytes", "python_live_bytes", "python_arenas_bytes", "malloc_live_bytes", "malloc_free_bytes")
        return {
            "worker": self.worker,
            "pid": self.process.pid,
            "state": self.state,
            "silent_since": self.silent_since,
            "reason": self.reason,
            "python": self.about.get("python"),
            "memory": {"rss_bytes": self.process.rss_bytes, **{key: allocators.get(key) for key in keys}},
            "balance": self.balance,
            "process": self.process.to_json(),
            "tasks": reading.get("tasks"),
            "window": reading.get("window"),
            "loop_pending_seconds": reading.get("loop_pending_seconds"),
            "ledger": reading.get("ledger"),
            "connections": self.connections,
            "last": {"time": self.last_time, "ledger": self.last.get("ledger")} if self.last else None,
        }


class Worker:
    """One process of the service and the conversation with its agent."""

    def __init__(self, name: str, pid: int, socket: Path | None, sockets: Sockets) -> None:
        self.name = name
        self._sockets = sockets
        self.pid = pid
        self.socket = socket
        self._balance = BalanceReader(pid)
        self._lock = asyncio.Lock()
        self._about: dict[str, Any] = {}
        self._last: dict[str, Any] | None = None
        self._last_time: float | None = None
        self._silent_since: float | None = None
        self._shared: tuple[float, Snapshot] | None = None

    async def ask(self, op: str, /, *, patience: float = READING_PATIENCE_SECONDS, **params: Any) -> dict[str, Any]:
        """Ask this worker's agent. Raises TargetError where it has none, and what `conversation.ask` raises."""
        if self.socket is None:
            raise TargetError(
                f"worker {self.name} (pid {self.pid}) has no agent: it can be read from outside only",
                remedy="start it under `diagnostics run`, or call instrument(app) in it",
                code="no_agent",
            )
        if op not in ("reading", "sample", "registered"):
            self._shared = None  # what was read before may no longer be so
        return await ask(self.socket, op, patience=patience, **params)

    def served(self) -> Served:
        """Its clients' connections as the kernel has them; a few system calls for each, so not on a loop's thread."""
        return self._sockets.served(self.pid)

    async def snapshot(self) -> Snapshot | None:
        """Look at this worker now; None if it has ended. Never raises for a worker in trouble: that is what it shows."""
        async with self._lock:
            if self._shared and time.monotonic() - self._shared[0] < SHARED_SECONDS:
                return self._shared[1]
            process = read_process(self.pid)
            if process is None or process.state == "Z":
                return None
            snapshot = await self._look(process)
            connections = await asyncio.to_thread(connections_of, self.pid, snapshot.reading, self._sockets)
            balance = await self._balance.read(process.rss_bytes, snapshot.reading, connections)
            snapshot = replace(snapshot, connections=connections, balance=balance)
            self._shared = (time.monotonic(), snapshot)
            return snapshot

    async def _look(self, process: ProcessReading) -> Snapshot:
        if self.socket is None:
            return Snapshot(self.name, process, "outside", None, reason=why_no_agent(self.pid))
        try:
            if not self._about:
                self._about = await self.ask("hello")
            reading = await self.ask("reading")
        except DiagnosticsError as error:
            self._silent_since = self._silent_since or time.time()
            reason = f"the process is stopped (state {process.state})" if process.state == "T" else error.message
            return Snapshot(
                self.name, process, "silent", None, self._silent_since, reason, self._last, self._last_time, self._about
            )
        self._silent_since, self._last, self._last_time = None, reading, time.time()
        return Snapshot(self.name, process, "answering", reading, about=self._about)


class Targets:
    """All workers below one registry, and those that `watch` names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._workers: dict[int, Worker] = {}
        self._watched: set[int] = set()
        self._sockets = Sockets()

    def watch(self, pid: int) -> None:
        """Show what process `pid` and its children serve even if no agent ever registers there."""
        self._watched.add(pid)

    def workers(self) -> list[Worker]:
        """The workers that are there now, in the order of their names."""
        self._look_around()
        return sorted(self._workers.values(), key=lambda worker: int(worker.name))

    def worker(self, name: str | None) -> Worker:
        """The worker of this name; with None, the first that has an agent. Raises NotFoundError."""
        workers = self.workers()
        for worker in workers:
            if worker.name == name or (name is None and worker.socket is not None):
                return worker
        if name is None:
            raise NotFoundError(
                f"no agent has registered below {self.root}",
                remedy="start the service with `diagnostics run -- CMD`, or call instrument(app) in it",
            )
        known = ", ".join(worker.name for worker in workers) or "none"
        raise NotFoundError(f"no worker {name!r}", remedy=f"known workers: {known}")

    async def snapshots(self) -> list[Snapshot]:
        """Look at all workers at once."""
        found = await asyncio.gather(*(worker.snapshot() for worker in self.workers()))
        return [snapshot for snapshot in found if snapshot is not None]

    def _look_around(self) -> None:
        sockets = registered_sockets(self.root)
        registered = set(sockets)
        now = registered | self._outside(registered)
        for pid in set(self._workers) - now:  # first those that left, so that their numbers are free
            del self._workers[pid]
        for pid in sorted(now):
            socket = sockets.get(pid)
            worker = self._workers.get(pid)
            if worker is None:
                self._workers[pid] = Worker(self._free_name(), pid, socket, self._sockets)
            elif worker.socket is None:
                worker.socket = socket

    def _outside(self, registered: set[int]) -> set[int]:
        """Processes without an agent that are to be shown: what serves below a watched command with no agent at all."""
        self._watched = {pid for pid in self._watched if alive(pid)}
        left = self._watched - registered
        if not left:
            return set()
        family = Family()
        return {
            pid
            for root in left
            if registered.isdisjoint(family.of(root))
            for pid in family.servers(root, self._sockets)
        }

    def _free_name(self) -> str:
        taken = {worker.name for worker in self._workers.values()}
        return next(str(number) for number in range(len(taken) + 1) if str(number) not in taken)
