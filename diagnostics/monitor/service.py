"""The monitor put together: targets, store, captures and routes on one listening socket, in one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..protocol import agents_folder, private_folder
from .audit import Audit
from .captures.controller import Captures
from .captures.kept.store import Store
from .judging.guard import Guard
from .judging.judge import Judge
from .judging.own_captures import OwnCaptures
from .recording.recorder import Recorder
from .rules.limits_file import LimitsFile
from .settings import MonitorSettings, fleet_words
from .web.access import Policy
from .web.app import build
from .web.edge import EdgeServer
from .web.fleet_look import FleetLook
from .web.token_guesses import Guesses
from .workers.targets import Targets

if TYPE_CHECKING:
    from .egress.egress import Egress
    from .export.exporter import Exporter

__all__ = ["Monitor", "stdin_closes"]

# How far above the nice value that it was started with, the service's: where cores are short the service goes first, since
# clients wait for it. Not more, because the monitor must also run in an incident: so it gets a tenth of the service's share
# (`beside` in docs/performance.md is what it needs).
_NICENESS: Final = 10


class Monitor:
    """One monitor.

    listener   a listening socket; closed at the end
    root       the folder of registry and store
    fleet      words that name the monitors of a fleet, in place of DIAGNOSTICS_FLEET_TARGETS
    """

    def __init__(self, listener: socket.socket, root: Path, fleet: Sequence[str] = ()) -> None:
        settings = MonitorSettings.of(os.environ)
        words = fleet_words(fleet) or settings.fleet
        self.fleet = FleetLook(words, (settings.read_token, settings.token))
        private_folder(root)
        private_folder(agents_folder(root))
        self.targets = Targets(root)
        self.captures = Captures(self.targets, Store(root, settings.keep))
        self.recorder = Recorder.below(root, self.targets, settings.record)
        self.audit = Audit(root / "audit.log")
        self.judge = Judge(self.targets, self.recorder, self.captures)
        self.recorder.said = self.judge.said
        self.guard = Guard(
            self.targets,
            self.recorder,
            self.captures,
            self.audit,
            settings.rules,
            judge=self.judge,
            kept=LimitsFile(root),
        )
        self.exporter = _exporter(self.targets, settings)
        self.egress: Egress | None = None
        if settings.egress.destination is not None:
            from .egress.egress import Egress  # it and what it imports are a megabyte

            self.egress = Egress(root, settings.egress, self.captures.store, self.recorder.endings, self.audit)
            self.captures.published = self.egress.published
        self.looks = OwnCaptures(self.targets, self.judge, self.captures, self.audit, settings.looks_per_hour)
        self._settings = settings
        self._listener = listener

    async def serve(self, until: Callable[[], Awaitable[None]]) -> None:
        """Serve until `until()` returns; then running captures are cancelled and their windows closed.

        Lowers the priority of the calling thread, for good, and of all threads that it starts.
        """
        # The monitor shares the service's standard error: the prefix tells its lines apart.
        logging.basicConfig(format="diagnostics: %(message)s")
        os.nice(_NICENESS)
        policy = _policy(self._listener, self._settings)
        guesses = Guesses()
        app, events = build(
            self.targets,
            self.captures,
            self.recorder,
            self.guard,
            self.judge,
            policy,
            self.audit,
            guesses,
            self._settings.pprof_interval_seconds,
            self.fleet,
            self.exporter.counted if self.exporter else None,
            self.egress,
        )
        server = EdgeServer(app, guesses.waiting)
        serving = asyncio.create_task(server.serve(sockets=[self._listener]), name="monitor")
        recording = asyncio.create_task(self.recorder.run(), name="recorder")
        guarding = asyncio.create_task(self.guard.run(), name="rules")
        delivering = asyncio.create_task(self.guard.deliveries.run(), name="deliveries")
        looking = asyncio.create_task(self.looks.run(), name="looks")
        exporting = asyncio.create_task(self.exporter.run(), name="export") if self.exporter else None
        sending = asyncio.create_task(self.egress.run(), name="egress") if self.egress is not None else None
        ending = asyncio.ensure_future(until())
        try:
            await asyncio.wait([serving, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            guarding.cancel()  # first: the rules might begin new captures
            looking.cancel()
            events.close()
            await asyncio.wait([guarding])  # the last firings are handed to the deliveries
            await asyncio.gather(self.captures.close(), self.guard.deliveries.finish())
            delivering.cancel()
            server.leave()
            ending.cancel()
            recording.cancel()
            tasks: list[asyncio.Future[Any]] = [serving, ending, recording, guarding, delivering, looking]
            if exporting is not None:
                exporting.cancel()
                tasks.append(exporting)
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.recorder.close()
            if self.egress is not None and sending is not None:
                await self.egress.close(sending)  # last: captures and recorder have written what there was to write
        if serving.done() and not serving.cancelled() and serving.exception():
            raise serving.exception()  # type: ignore[misc]  # checked on the line before


def _exporter(targets: Targets, settings: MonitorSettings) -> Exporter | None:
    if settings.profiles is None:
        return None
    from .export.exporter import Exporter  # its HTTP client is loaded only where something is pushed

    return Exporter(targets, settings.profiles)


async def stdin_closes() -> None:
    """Returns when standard input ends: then the process that started this one is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    try:
        while await reader.read(1024):
            pass
    finally:
        transport.close()


def _policy(listener: socket.socket, settings: MonitorSettings) -> Policy:
    return Policy.of(
        host=str(listener.getsockname()[0]),
        extra_hosts=settings.allowed_hosts,
        token=settings.token,
        read_token=settings.read_token,
    )
