"""A service under study: its process, its port, and the monitor beside it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ..errors import TargetError
from .monitor_client import Monitor
from .processes import Process, free_port, start, wait_for_listener

__all__ = ["START_SECONDS", "Subject", "serve_command", "subject", "upstream"]

# Imports on a busy machine; a service that needs longer is broken.
START_SECONDS = 30.0
_FIRST_READING_SECONDS = 15.0


class Subject:
    """A started service. `port` is where it listens, `process` is `diagnostics run` with the service as its child.

    `collects`: it is a service of `proof.serve`, which collects garbage when it is told to.
    """

    def __init__(
        self, side: str, process: Process, port: int, *, collects: bool = True, start_seconds: float = START_SECONDS
    ) -> None:
        self._collects = collects
        self._start_seconds = start_seconds
        self.side = side
        self.process = process
        self.port = port
        self._monitor: Monitor | None = None

    @property
    def monitor(self) -> Monitor:
        assert self._monitor is not None, "ready() comes first"
        return self._monitor

    async def ready(self) -> None:
        """Return when the service listens and its memory can be read. Raises TargetError with its last output."""
        found = await self.process.line(r"^diagnostics (http://\S+)$", START_SECONDS)
        await wait_for_listener(self.process, self.port, self._start_seconds)
        self._monitor = Monitor(found[1])
        try:
            await self._monitor.first_reading(_FIRST_READING_SECONDS)
        except TargetError as error:
            raise await self.process.blamed(error) from error

    def collect(self) -> None:
        """Tell the service to collect garbage; it does so as soon as its loop comes by.

        Frames of streams that ended with an error hang in cycles with their tracebacks. That is not what a leak is.
        """
        for pid in self.monitor.pids if self._collects else ():
            # A worker that has just ended has nothing left to collect.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    async def close(self) -> None:
        if self._monitor is not None:
            await self._monitor.close()


@asynccontextmanager
async def subject(
    side: str,
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    collects: bool = True,
    start_seconds: float = START_SECONDS,
) -> AsyncGenerator[Subject, None]:
    """Start `command` under `diagnostics run`; `{port}` in it becomes a free port. Ended, with its children, with the block.

    A command that is not of `proof.serve` must not be told to collect: the signal would end it.
    """
    port = free_port()
    service = [word.replace("{port}", str(port)) for word in command]
    run = [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *service]
    # Each has a registry of its own: a monitor must not find the other one's agent.
    private = {"DIAGNOSTICS_DIR": str(folder / side), **environment}
    async with start(f"{side} app", run, output=folder / f"{side}.log", environment=private) as process:
        one = Subject(side, process, port, collects=collects, start_seconds=start_seconds)
        try:
            yield one
        finally:
            await one.close()


def serve_command(app: str, send_buffer_bytes: int, *options: str) -> list[str]:
    """The command that serves an ASGI app (`module:attribute`) on `{port}`; `options` as of `diagnostics.proof.serve`."""
    return [
        sys.executable,
        "-m",
        "diagnostics.proof.serve",
        app,
        "--port",
        "{port}",
        "--send-buffer",
        str(send_buffer_bytes),
        *options,
    ]


@asynccontextmanager
async def upstream(folder: Path) -> AsyncGenerator[str, None]:
    """Start the simulator and give its base URL, which ends in /v1.

    By command line: diagnostics knows of the relay only that it can be run.
    """
    command = [sys.executable, "-m", "relay", "simulate", "--port", "0", "--until-stdin-closes"]
    async with start("simulator", command, output=folder / "simulator.log") as process:
        found = await process.line(r"^simulator (http://\S+)$", START_SECONDS)
        yield found[1]
