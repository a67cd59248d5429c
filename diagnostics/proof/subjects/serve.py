"""Serve one ASGI app as a subject: `python -m diagnostics.proof.subjects.serve MODULE:APP --port P`.

uvicorn as it comes, with one difference: the size of the sockets' send buffers is given, and the same for every
subject. Left to the kernel it grows with the reader's pace, and would hide the first megabyte that a service buffers
for a slow client. SIGUSR1 makes it collect garbage: what waits for the collector is no memory that somebody holds. SIGUSR2
gives back to the collector what it was told to leave alone, so that a census of objects sees what hangs on it.
"""

from __future__ import annotations

import argparse
import gc
import signal
import socket
import sys
from pathlib import Path

import uvicorn

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diagnostics.proof.subjects.serve")
    parser.add_argument("app", metavar="MODULE:APP")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--send-buffer", type=int, default=0, metavar="BYTES", help="SO_SNDBUF of the listening socket; 0: the kernel's"
    )
    parser.add_argument("--http", default="auto", metavar="MODULE:CLASS", help="the HTTP protocol, as of uvicorn")
    arguments = parser.parse_args(argv)
    # As `uvicorn MODULE:APP` does: an app of one's own is found in the folder where the command runs.
    sys.path.insert(0, str(Path.cwd()))
    config = uvicorn.Config(arguments.app, http=arguments.http, lifespan="on", log_level="warning", access_log=False)
    # Loaded before the port is open: who can connect finds an app, and one that cannot be imported never listens.
    config.load()
    server = uvicorn.Server(config)
    signal.signal(signal.SIGUSR1, lambda *_: _collect(server.started))
    signal.signal(signal.SIGUSR2, lambda *_: _thaw())
    with socket.create_server(("127.0.0.1", arguments.port)) as listener:
        if arguments.send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, arguments.send_buffer)
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _collect(started: bool) -> None:
    gc.collect()
    if started and not gc.get_freeze_count():
        # What the imports made stays anyway. Looked through ten times a second it would leave no time for the service.
        gc.freeze()


def _thaw() -> None:
    # Frozen first, what is younger goes behind what has been frozen for long: a census takes what comes late for young.
    gc.freeze()
    gc.unfreeze()


if __name__ == "__main__":
    sys.exit(main())
