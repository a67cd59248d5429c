"""The workers of the service: their registration, their state, their last readings.

A worker is a process. It is known by its agent's socket in the registry, or by its pid alone where it has no agent; then it
is read from outside only. Workers are numbered, and a dead worker's number is given to the next one, so that the label
`worker` has as few values as there are workers.

A process that only supervises workers (uvicorn's and gunicorn's parent, a shell) is none: it serves nothing, and a command
passed to `watch` is shown itself only while no agent has registered in its family. A process that has supervised once is
never a worker later, with or without an agent: under uvicorn's --reload the parent holds the listening socket alone while the
edited code is broken.

A worker whose agent has gone while its process lives (its socket was removed, its thread has ended) stays a worker for
`LOST_SECONDS`, without an agent: it must be visible, and its agent may come back. A process that ends or is being replaced
outlives its agent for a moment, too: it is not shown in its last seconds, nor once its successor is there.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import DiagnosticsError, NotFoundError, TargetError
from ..kernel.family import Family, watched_listeners, why_no_agent
from ..kernel.process import Identity, ProcessReading, alive, identity, lives, read_process
from ..kernel.sockets import Served, Sockets
from .acquaintance import not_the_one
from .attachments import Attachments
from .balance import BalanceReader
from .connections import connections_of, streams_of
from .conversation import ask
from .hidden import without_hidden
from .processes import Member, members
from .registry import Registry
from .roster import Roster

__all__ = ["Snapshot", "Targets", "Worker"]

# A reading takes milliseconds; an agent that needs longer than this does not get to run.
READING_PATIENCE_SECONDS = 2.0
# A reading is reused for this long: several clients and Prometheus may request it at once.
SHARED_SECONDS = 0.1
# Long enough for an alert that waits some minutes. A process that has stopped its agent on purpose is dropped after it.
LOST_SECONDS = 900.0
# An ending process outlives its agent for a moment; only after this long its agent counts as lost.
LEAVING_SECONDS = 5.0


@dataclass(frozen=True)
class Snapshot:
    """One worker at one moment.

    state     answering; silent (alive, but its agent does not answer); outside (it has no agent)
    reading   the agent's answer, None unless it is answering
    connections  from `connections_of`
    last      for a silent worker its agent's last answer, with its wall-clock time
    balance   its memory by part, see workers/balance.py; None where the kernel does not answer
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
    connections: dict[str, Any] = field(default_factory=dict)
    balance: dict[str, Any] | None = None

    def streams(self) -> list[dict[str, Any]]:
        """The individually known open streams, as rows; see `streams_of`."""
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
            "memory": {
                "rss_bytes": self.process.rss_bytes,
                "pss_bytes": (self.balance or {}).get("pss_bytes"),
                "private_bytes": (self.balance or {}).get("private_bytes"),
                **{key: allocators.get(key) for key in keys},
                "unknown": self._unknown(),
            },
            "balance": self.balance,
            "process": self.process.to_json(),
            "tasks": reading.get("tasks"),
            "window": reading.get("window"),
            "loop_pending_seconds": reading.get("loop_pending_seconds"),
            "unknown": reading.get("unknown") or {},
            "heap": reading.get("heap"),
            "ledger": reading.get("ledger"),
            "connections": self.connections,
            "last": {"time": self.last_time, "ledger": self.last.get("ledger")} if self.last else None,
        }

    def _unknown(self) -> dict[str, str]:
        """Name of a figure in `memory` -> why it is null."""
        if self.reading is None:
            why = self.reason or "its agent does not answer"
            return dict.fromkeys(("in_use_bytes", "python_live_bytes", "malloc_live_bytes"), why)
        return dict((self.reading.get("allocators") or {}).get("unknown") or {})


class Worker:
    """One process of the service, and the requests to its agent."""

    def __init__(self, name: str, pid: int, socket: Path | None, sockets: Sockets, who: Identity | None = None) -> None:
        self.name = name
        self._sockets = sockets
        self.pid = pid
        self.who = who
        self.placed = False  # whether its supervisors are known
        self.lost_since: float | None = None  # since when its agent is gone, monotonic seconds
        self.socket = socket
        self._balance = BalanceReader(pid)
        self._lock = asyncio.Lock()
        self._about: dict[str, Any] = {}
        self._last: dict[str, Any] | None = None
        self._last_time: float | None = None
        self._silent_since: float | None = None
        self._shared: tuple[float, Snapshot] | None = None

    async def ask(self, op: str, /, *, patience: float = READING_PATIENCE_SECONDS, **params: Any) -> dict[str, Any]:
        """Send a request to this worker's agent. Raises TargetError where it has none, and as `conversation.ask` does."""
        if self.lost_since is not None:
            raise TargetError(
                f"the agent of worker {self.name} (pid {self.pid}) has gone",
                remedy="the process is ending, or its socket was removed: then it makes another within seconds",
                code="agent_gone",
            )
        if self.socket is None:
            raise TargetError(
                f"worker {self.name} (pid {self.pid}) has no agent: it can be read from outside only",
                remedy="start it under `diagnostics run`, or call instrument(app) in it",
                code="no_agent",
            )
        if op not in ("reading", "sample", "registered"):
            self._shared = None  # the operation may have changed what was read before
        if not self._about:
            self._about = await self._identify(patience)
        return await ask(self.socket, op, patience=patience, **params)

    async def _identify(self, patience: float) -> dict[str, Any]:
        """Send "hello" and check the answer. Raises TargetError where the agent is not that of this process."""
        assert self.socket is not None
        hello = await ask(self.socket, "hello", patience=patience)
        why = await asyncio.to_thread(not_the_one, hello, self.pid)
        if why is not None:
            raise TargetError(
                f"the agent at {self.socket.name} is not joined with process {self.pid}: {why}",
                remedy="let monitor and service share a PID namespace (Kubernetes: shareProcessNamespace: true)",
                code="another_process",
            )
        return hello

    def served(self) -> Served:
        """The process's connections from the kernel; a few system calls for each, so not for an event loop's thread."""
        return self._sockets.served(self.pid)

    async def snapshot(self) -> Snapshot | None:
        """Read this worker now; None if it has ended. A worker that does not answer is a snapshot, never an exception."""
        async with self._lock:
            if self._shared and time.monotonic() - self._shared[0] < SHARED_SECONDS:
                return self._shared[1]
            process = read_process(self.pid)
            if process is None or process.state == "Z":
                return None
            snapshot = await self._read(process)
            connections = await asyncio.to_thread(self._connections, snapshot.reading)
            balance = await self._balance.read(process.rss_bytes, snapshot.reading, connections)
            snapshot = replace(snapshot, connections=connections, balance=balance)
            self._shared = (time.monotonic(), snapshot)
            return snapshot

    def _connections(self, reading: dict[str, Any] | None) -> dict[str, Any]:
        return without_hidden(connections_of(self.pid, reading, self._sockets), self.pid, self._sockets)

    async def _read(self, process: ProcessReading) -> Snapshot:
        if self.lost_since is not None:
            ago = time.monotonic() - self.lost_since
            return Snapshot(
                self.name, process, "outside", None, reason=f"its agent went {ago:.0f} s ago; the process lives on"
            )
        if self.socket is None:
            return Snapshot(self.name, process, "outside", None, reason=why_no_agent(self.pid))
        try:
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
    """All workers of one registry, and those below the processes passed to `watch`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._workers: dict[int, Worker] = {}
        self._watched: set[int] = set()
        self._gone: dict[int, Worker] = {}  # their agents are gone, their processes may live
        self._sockets = Sockets()
        self.attachments = Attachments(root)
        self._registry = Registry(root, self.attachments)
        self._ever_attached: set[int] = set()
        self._roster = Roster(root)
        self._supervisors: set[Identity] = set(self._roster.supervisors)

    def watch(self, pid: int) -> None:
        """Show the serving processes among `pid` and its descendants even if no agent ever registers there."""
        self._watched.add(pid)

    def workers(self) -> list[Worker]:
        """The present workers, by number."""
        self._refresh()
        return sorted(self._workers.values(), key=lambda worker: int(worker.name))

    @property
    def known(self) -> list[Worker]:
        """The workers as they were last found, in no order: the registry is not read for it."""
        return list(self._workers.values())

    def worker(self, name: str | None) -> Worker:
        """The worker of this name; for None the first that has an agent. Raises NotFoundError."""
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
        """Read all workers concurrently."""
        snapshots = await asyncio.gather(*(worker.snapshot() for worker in self.workers()))
        return [snapshot for snapshot in snapshots if snapshot is not None]

    def processes(self, workers: Iterable[Worker] | None = None) -> list[Member]:
        """All running processes of the service; see `processes.members`. `workers`: those that have just been found."""
        names = {worker.pid: worker.name for worker in (self.workers() if workers is None else workers)}
        supervisors = {who.pid for who in self._supervisors}
        return members({*self._watched, *names, *supervisors}, names, supervisors, Family())

    @property
    def unseen(self) -> set[str]:
        """Sockets of agents whose processes are not visible here, because they are in another PID namespace."""
        return self._registry.unseen

    def _refresh(self) -> None:
        registered = self._registry.agents()
        self._supervisors = {who for who in self._supervisors if lives(who)}
        supervisors = {who.pid for who in self._supervisors}
        now = (registered.keys() | self._outside(set(registered) - supervisors)) - supervisors
        now |= self._lost(now) - supervisors
        for pid in set(self._workers) - now:  # first those that are gone, to free their numbers
            self._leaves(self._workers.pop(pid))
        for pid in sorted(now):
            worker = self._workers.get(pid)
            if worker is None:
                identified = identity(pid)
                who = identified[0] if identified else None
                self._workers[pid] = Worker(self._name_for(who, now), pid, registered.get(pid), self._sockets, who)
            elif worker.socket is None:
                worker.socket = registered.get(pid)
                if worker.socket is not None:
                    worker.lost_since = None
        if self._see_supervisors():
            self._refresh()
            return
        names = {worker.name: worker.who for worker in self._workers.values() if worker.who is not None}
        self._roster.keep(names, self._supervisors)

    def _leaves(self, worker: Worker) -> None:
        """Keep a worker whose agent is gone and whose process may live."""
        if worker.socket is not None:
            worker.lost_since, worker.socket = time.monotonic(), None
            self._gone[worker.pid] = worker

    def _lost(self, now: set[int]) -> set[int]:
        """The workers that live without the agents that they had, and are still shown."""
        if not now <= self._workers.keys():  # new workers may be their successors, and take their numbers
            self._gone.clear()
        attached = {made.who.pid for made in self.attachments.all()}
        for pid in self._ever_attached - attached:  # detached on purpose
            self._gone.pop(pid, None)
        self._ever_attached = attached
        ages = {pid: time.monotonic() - (worker.lost_since or 0.0) for pid, worker in self._gone.items()}
        self._gone = {
            pid: worker
            for pid, worker in self._gone.items()
            if pid not in now and ages[pid] < LOST_SECONDS and worker.who is not None and lives(worker.who)
        }
        shown = {pid for pid in self._gone if ages[pid] >= LEAVING_SECONDS}
        self._workers.update({pid: self._gone[pid] for pid in shown})
        return shown

    def _see_supervisors(self) -> bool:
        """Find ancestors of workers that are their supervisors; True if one of them was taken for a worker until now.

        A supervisor holds the socket that the worker serves on, but does not accept there: the worker's epoll watches the
        socket and its own does not, or it has never had an agent, which a process that serves gets first.
        """
        supervisors: set[Identity] = set()
        for worker in self._workers.values():
            listeners = self._sockets.listeners(worker.pid) if worker.socket and not worker.placed else set()
            if not listeners:
                continue
            worker.placed = True
            accepts = bool(watched_listeners(worker.pid, self._sockets))
            for above in Family().above(worker.pid):
                if above == os.getpid():
                    break
                if not listeners & self._sockets.listeners(above) or watched_listeners(above, self._sockets):
                    continue
                elder = self._workers.get(above)
                who = identity(above)
                if who is not None and (accepts or elder is None or elder.socket is None):
                    supervisors.add(who[0])
        self._supervisors |= supervisors
        return any(who.pid in self._workers for who in supervisors)

    def _outside(self, registered: set[int]) -> set[int]:
        """The serving processes without agents below those watched commands that have no agent in their family."""
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

    def _name_for(self, who: Identity | None, now: set[int]) -> str:
        """The number that this process had under an earlier monitor, else the lowest free one."""
        taken = {worker.name for worker in self._workers.values()}
        had = self._roster.name_of(who) if who else None
        if had is not None and had not in taken:
            return had
        taken |= {name for other, name in self._roster.names.items() if other.pid in now and lives(other)}
        return next(str(number) for number in range(len(taken) + 1) if str(number) not in taken)
