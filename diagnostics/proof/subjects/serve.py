"""Serve one ASGI app as a subject: `python -m diagnostics.proof.subjects.serve MODULE:APP --port P`.

uvicorn unchanged, except that the size of the sockets' send buffers is fixed, and the same for every subject. The kernel would
enlarge them with the reader's pace, which would hide the first megabyte that a service buffers for a slow client. SIGUSR1
makes it collect garbage, which is no held memory. SIGUSR2 unfreezes the objects that were frozen (`gc.freeze`), so that a
census sees them.
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
    # As `uvicorn MODULE:APP` does: the user's own app is found in the current folder.
    sys.path.insert(0, str(Path.cwd()))
    config = uvicorn.Config(arguments.app, http=arguments.http, lifespan="on", log_level="warning", access_log=False)
    # Loaded before the port is open: a client that can connect gets the app, and an app that cannot be imported never listens.
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
        # Objects of imports stay anyway. Collecting them ten times a second would leave no CPU time for the service.
        gc.freeze()


def _thaw() -> None:
    # Frozen first, so that younger objects are listed behind the older, frozen ones: a census takes later ones for younger.
    gc.freeze()
    gc.unfreeze()


if __name__ == "__main__":
    sys.exit(main())
