"""A process that serves: the relay's only one (`serve`), or one of several workers under a supervisor (`main`).

A worker is started as `python -m relay.serving.worker`. The first line of its standard input is a Handover in JSON, so that no
key is in a command line or an environment. The end of its input means that the supervisor is gone: the worker drains and ends
as on SIGTERM. It writes READY to its standard output once it serves.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from diagnostics import MonitorProcess

from ..settings import Settings, load
from .process import prepare
from .scheduling import ask_for_short_slices

__all__ = ["READY", "Handover", "main", "serve"]

READY: Final = "ready"

# The GIL's switch interval. The event loop shares the GIL with the agent's thread and the exporters' threads, and a thread that
# wants it waits for this long before it asks the holder to release it: Python's default of 5 ms may make an event 5 ms late.
SWITCH_SECONDS: Final = 0.0005
# The garbage collector's thresholds. A full collection stops all streams, with 5,000 open for a third of a second. It is due
# when the objects that survived have grown by a quarter, which the default thresholds check every 70,000 objects, so that
# thousands of streams that open cause several. Streams leave no cycles and need no collector; a stray old cycle may stay until
# a million more objects were made.
COLLECTOR: Final = (2_000, 10, 50)


@dataclass(frozen=True, slots=True)
class Handover:
    """The line that a supervisor sends to its worker.

    settings   their values by field name, but for None
    listener   the inherited descriptor of the listening socket
    upstream   the upstream's base URL
    monitor    the monitor's URL and folder; None without one
    """

    settings: dict[str, Any]
    listener: int
    upstream: str
    monitor: tuple[str, str] | None

    @classmethod
    def of(cls, settings: Settings, listener: socket.socket, upstream: str, monitor: MonitorProcess | None) -> Handover:
        values = {name: getattr(settings, name) for name in Settings.model_fields}
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in values.items()
            if value is not None
        }
        place = (monitor.url, str(monitor.directory)) if monitor else None
        return cls(plain, listener.fileno(), upstream, place)

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def serve(
    settings: Settings,
    listener: socket.socket,
    upstream: str,
    monitor: MonitorProcess | None,
    announce: Callable[[], None],
    look_around: Callable[[], None],
) -> int:
    """Serve until a signal. Returns the exit code. The arguments are those of create_app and RelayServer."""
    # Imported here, since a supervisor imports this file and needs neither the web framework nor the HTTP client.
    from ..app import create_app
    from .server import RelayServer

    sys.setswitchinterval(SWITCH_SECONDS)
    ask_for_short_slices()
    gc.set_threshold(*COLLECTOR)
    relay = create_app(settings, upstream, monitor=monitor or False)
    server = RelayServer(relay, announce, look_around)
    server.run(sockets=[listener])
    return 128 + server.signals[-1] if server.force_exit else 0


def main() -> int:
    """`python -m relay.serving.worker`."""
    handover = json.loads(sys.stdin.buffer.readline())
    settings = load(**handover["settings"])
    prepare(settings)
    monitor = None
    if handover["monitor"] is not None:
        url, directory = handover["monitor"]
        monitor = MonitorProcess(url, Path(directory), None)
    threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    with socket.socket(fileno=handover["listener"]) as listener:
        return serve(settings, listener, handover["upstream"], monitor, lambda: print(READY, flush=True), lambda: None)


def _end_with_stdin() -> None:
    """Send this process SIGTERM at the end of its standard input: the supervisor is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
