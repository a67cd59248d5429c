"""`diagnostics monitor`: the monitor alone, for agents in a registry folder (a sidecar)."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ..agent.instrument.monitor_process import DEFAULT_LISTEN, address_of, bind, hold
from ..monitor.loop import run_monitor
from ..monitor.service import Monitor, stdin_closes
from ..protocol import default_root
from ._fleet_words import add_fleet

__all__ = ["configure", "run", "until_stopped"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="default %(default)s; port 0: any"
    )
    parser.add_argument("--dir", type=Path, help="the registry's parent (default DIAGNOSTICS_DIR)")
    add_fleet(parser)
    parser.add_argument("--fd", type=int, help="serve on this listening socket, inherited, instead of --listen")
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end when standard input ends: with the service that started it",
    )


def run(arguments: argparse.Namespace) -> int:
    inherited = arguments.fd is not None
    listener = socket.socket(fileno=arguments.fd) if inherited else bind(arguments.listen)
    with listener:
        address = address_of(listener)
        root = arguments.dir or Path(default_root(address))
        monitor = Monitor(listener, root, arguments.fleet)
        if not inherited:
            print(f"diagnostics http://{address}/debug/memory", flush=True)
        with hold(root):
            run_monitor(monitor.serve(until_stopped(with_stdin=arguments.until_stdin_closes)))
    return 0


def until_stopped(*, with_stdin: bool) -> Callable[[], Awaitable[None]]:
    async def until() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait())]
        if with_stdin:
            waiting.append(asyncio.ensure_future(stdin_closes()))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()

    return until
