"""Several workers on one port: a supervisor that starts them, replaces those that die, and ends them all.

The law of this file. The supervisor serves nothing and imports nothing of the app: it holds the listening socket, which the
workers inherit and accept from, and waits. It forwards SIGTERM and SIGINT to its workers, which drain; the terminal's signals
do not reach them, since each is in a process group of its own. A worker that dies ends only its own streams. A worker that
cannot start ends the relay if that is at the relay's start; later it is started again with growing pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Final

from diagnostics import MonitorProcess

from ..errors import ChildError
from ..settings import Settings
from .worker import READY, Handover

__all__ = ["Supervisor"]

log = logging.getLogger("relay.workers")

# A worker that ran for longer did not fail at its start: the next one is started at once.
SETTLED_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
# After the drain, until a worker that has not ended is killed as stuck; and after a second signal.
STUCK_SECONDS: Final = 10.0
FORCED_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 1.0


class Supervisor:
    """Runs `settings.workers` workers. `announce` is called once, when all serve; `look_around` every WATCH_SECONDS."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        upstream: str,
        monitor: MonitorProcess | None,
        announce: Callable[[], None],
        look_around: Callable[[], None],
    ) -> None:
        self._workers = settings.workers
        self._patience = settings.drain_seconds + STUCK_SECONDS
        self._listener = listener
        self._handover = Handover.of(settings, listener, upstream, monitor).to_line()
        self._announce = announce
        self._look_around = look_around
        self._processes: set[Process] = set()
        self._starting = settings.workers  # workers that have yet to serve for the first time
        self._signals: list[int] = []
        self._ending = asyncio.Event()
        self._stuck = False

    def run(self) -> int:
        """Supervise until a signal has ended all workers. Returns the exit code. Raises ChildError where one cannot start."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        watching = asyncio.create_task(self._watch(), name="relay.workers.watch")
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._keep())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the ChildError of a worker; the others were cancelled for it
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        if len(self._signals) > 1:
            return 128 + self._signals[-1]
        return ChildError.exit_code if self._stuck else 0

    async def _keep(self) -> None:
        """Keep one worker running until a signal: when it ends, start the next one."""
        pause = 0.0
        while not self._signals:
            began = time.monotonic()
            pid, code = await self._live()
            if self._signals:
                return
            lived = time.monotonic() - began
            pause = 0.0 if lived > SETTLED_SECONDS else min(max(FIRST_PAUSE_SECONDS, 2 * pause), LONGEST_PAUSE_SECONDS)
            log.warning("worker %d has ended with %s; the next one starts in %g s", pid, _named(code), pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _live(self) -> tuple[int, int]:
        """Run one worker. Returns its pid and its return code. Raises ChildError where it ends before all have served once."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay.serving.worker",
            stdin=PIPE, stdout=PIPE, pass_fds=[self._listener.fileno()], process_group=0,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        self._processes.add(process)
        try:
            process.stdin.write(self._handover)
            if self._signals:
                process.terminate()  # the signal came before it was in `_processes`
            if await process.stdout.readline() == f"{READY}\n".encode():
                self._serves()
            code = await process.wait()
            if self._starting and not self._signals:
                raise ChildError(
                    f"worker {process.pid} ended with {_named(code)} before it served",
                    remedy="its own message stands above; `relay serve --workers 1` shows it without the others",
                )
            return process.pid, code
        finally:
            self._processes.discard(process)
            if process.returncode is None:  # this task was cancelled, since another worker did not start
                process.kill()
                await process.wait()
            process.stdin.close()

    def _serves(self) -> None:
        if self._starting:
            self._starting -= 1
            if not self._starting:
                self._announce()

    def _signalled(self, number: int) -> None:
        # A worker may see two quick signals as one, and drain: so the second one has a time-out, too.
        patience = FORCED_SECONDS if self._signals else self._patience
        asyncio.get_running_loop().call_later(patience, self._kill)
        self._signals.append(number)
        self._ending.set()
        # With the workers' own descriptors closed as well, new connections are refused, so that clients go elsewhere.
        self._listener.close()
        for process in self._processes:
            process.send_signal(number)

    def _kill(self) -> None:
        for process in self._processes:
            self._stuck = True
            log.error("worker %d has not ended in time after it was told to; it is killed", process.pid)
            process.kill()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._look_around()


def _named(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
