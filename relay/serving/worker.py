"""A process that serves: the whole relay where there is one, or one of several below a supervisor (supervisor.py).

A worker is started as `python -m relay.serving.worker`. The first line of its standard input is a Handover, JSON, so that
no key stands in a command line or an environment; when the input ends, its supervisor is gone, and it drains and ends as on
SIGTERM. It writes READY to its standard output once it serves.
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

# The loop shares the interpreter with the agent's thread and with those that send telemetry. Who wants it waits for so long and
# then asks whoever has it to let go: at Python's own 5 ms each of their looks may make an event 5 ms late.
SWITCH_SECONDS: Final = 0.0005
# A full look of the garbage collector stops every stream, with 5,000 open for a third of a second. It is due when what has
# come to stay has grown by a quarter, and by default that is looked into every 70,000 objects: thousands of streams that
# open are growth enough for several. What a stream leaves has no cycles and needs no collector; a stray cycle that has got
# old may stay until a million objects more have come.
COLLECTOR: Final = (2_000, 10, 50)


@dataclass(frozen=True, slots=True)
class Handover:
    """What a supervisor tells its worker.

    settings   by field name, those that are set
    listener   the number of the inherited descriptor
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
    """Serve until a signal; the exit code. The other arguments are those of create_app and RelayServer."""
    # Here, not above: a supervisor imports this file and needs neither the web framework nor the client.
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
    told = json.loads(sys.stdin.buffer.readline())
    settings = load(**told["settings"])
    prepare(settings)
    monitor = None
    if told["monitor"] is not None:
        url, directory = told["monitor"]
        monitor = MonitorProcess(url, Path(directory), None)
    threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    with socket.socket(fileno=told["listener"]) as listener:
        return serve(settings, listener, told["upstream"], monitor, lambda: print(READY, flush=True), lambda: None)


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
