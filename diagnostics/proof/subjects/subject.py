"""A service under study: its process, its port, and the monitor beside it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ...errors import TargetError
from ...monitor.workers.conversation import ask
from ...protocol import agent_socket
from .monitor_client import MonitorClient
from .processes import Process, free_port, start, wait_for_listener

__all__ = ["START_SECONDS", "Collects", "Launch", "Subject", "serve_command", "subject", "upstream"]

# Enough for imports on a busy machine.
START_SECONDS = 30.0
_FIRST_READING_SECONDS = 15.0
# A collection stalls a service for a tenth of a second for each million objects.
_COLLECT_SECONDS = 10.0


class Collects(StrEnum):
    """How a service is made to collect garbage before its memory is read at rest.

    SIGNAL   by SIGUSR1: for services of `proof.subjects.serve` only, since it would end any other
    AGENT    by its agent, where it has one
    """

    SIGNAL = "signal"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Launch:
    """A service's start: its command, in which `{port}` is replaced by a free port, and its environment variables."""

    command: Sequence[str]
    environment: Mapping[str, str]
    collects: Collects = Collects.SIGNAL

    def words(self, port: int) -> list[str]:
        return [word.replace("{port}", str(port)) for word in self.command]


class Subject:
    """A started service. `process`: `diagnostics run`, with the service as its child; `port`: the service's.

    registry   the folder in which its agents register
    beside     number of connections that it has at rest: a publisher's
    """

    def __init__(
        self, side: str, process: Process, port: int, *, collects: Collects, registry: Path, start_seconds: float
    ) -> None:
        self._collects = collects
        self._registry = registry
        self._start_seconds = start_seconds
        self.side = side
        self.process = process
        self.port = port
        self.beside = 0
        self._monitor: MonitorClient | None = None

    @property
    def monitor(self) -> MonitorClient:
        assert self._monitor is not None, "ready() comes first"
        return self._monitor

    async def ready(self) -> None:
        """Return when the service listens and its memory can be read. Raises TargetError with its last output."""
        match = await self.process.line(r"^diagnostics (http://\S+)$", START_SECONDS)
        await wait_for_listener(self.process, self.port, self._start_seconds)
        self._monitor = MonitorClient(match[1])
        try:
            await self._monitor.first_reading(_FIRST_READING_SECONDS)
        except TargetError as error:
            raise await self.process.blamed(error) from error

    async def collect(self) -> None:
        """Make the service collect garbage; after a signal it does so in the next round of its event loop.

        Frames of streams that ended with an error are in reference cycles with their tracebacks: those are no leak.
        """
        for pid in self.monitor.pids:
            # The worker may have just ended: the next reading reports that.
            if self._collects is Collects.SIGNAL:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
            elif self._collects is Collects.AGENT and not self.monitor.outside:
                with suppress(TargetError):
                    await ask(Path(agent_socket(self._registry, pid)), "gc.collect", patience=_COLLECT_SECONDS)

    def thaw(self) -> None:
        """Unfreeze the service's objects before a census: frozen ones (`gc.freeze`) are in no list of the collector."""
        for pid in self.monitor.pids if self._collects is Collects.SIGNAL else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR2)

    async def close(self) -> None:
        if self._monitor is not None:
            await self._monitor.close()


@asynccontextmanager
async def subject(
    side: str, launch: Launch, *, folder: Path, start_seconds: float = START_SECONDS
) -> AsyncGenerator[Subject, None]:
    """Start a service under `diagnostics run`; it is ended, with its children, at the end of the context."""
    port = free_port()
    run = [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *launch.words(port)]
    # Each subject has a registry of its own: a monitor must not find another subject's agent.
    registry = folder / side
    private = {"DIAGNOSTICS_DIR": str(registry), **launch.environment}
    async with start(f"{side} app", run, output=folder / f"{side}.log", environment=private) as process:
        one = Subject(side, process, port, collects=launch.collects, registry=registry, start_seconds=start_seconds)
        try:
            yield one
        finally:
            await one.close()


def serve_command(app: str, send_buffer_bytes: int, *options: str) -> list[str]:
    """The command that serves an ASGI app (`module:attribute`) on `{port}`; `options`: further ones of serve.py."""
    return [
        sys.executable,
        "-m",
        "diagnostics.proof.subjects.serve",
        app,
        "--port",
        "{port}",
        "--send-buffer",
        str(send_buffer_bytes),
        *options,
    ]


@asynccontextmanager
async def upstream(folder: Path) -> AsyncGenerator[str, None]:
    """Start the simulated upstream and yield its base URL, which ends in /v1.

    By its command line: diagnostics must not import relay.
    """
    command = [sys.executable, "-m", "relay", "simulate", "--port", "0", "--until-stdin-closes"]
    async with start("simulator", command, output=folder / "simulator.log") as process:
        match = await process.line(r"^simulator (http://\S+)$", START_SECONDS)
        yield match[1]
