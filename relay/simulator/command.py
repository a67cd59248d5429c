"""The command `relay simulate`: listens, prints its base URL first, and serves until a signal or the end of its input."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable

from .http import SimulatorConnection
from .service import Service

__all__ = ["configure", "main", "run"]

# Of the listening socket: thousands of clients may connect at once.
_BACKLOG = 4096


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `relay simulate`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=0, help="port to listen on; 0 takes any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of models whose name gives none (default: %(default)s)"
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="stop when stdin ends, that is when the parent process has gone",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, or 2 where it cannot listen on the address."""
    _raise_file_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(arguments))


def main(argv: list[str] | None = None) -> int:
    """`python -m relay.simulator`."""
    parser = argparse.ArgumentParser(
        prog="python -m relay.simulator", description="An OpenAI-compatible upstream with faults."
    )
    configure(parser)
    return run(parser.parse_args(argv))


async def _serve(arguments: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    service = Service(seed=arguments.seed)
    try:
        server = await loop.create_server(
            lambda: SimulatorConnection(service), arguments.host, arguments.port, backlog=_BACKLOG, reuse_address=True
        )
    except OSError as error:
        print(
            f"relay simulate: cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}. "
            "Choose another --host or --port; --port 0 takes any free one",
            file=sys.stderr,
        )
        return 2
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if arguments.until_stdin_closes:
        _when_stdin_closes(loop, stopped.set)
    print(f"simulator {_url(server.sockets[0].getsockname())}", flush=True)
    await stopped.wait()
    server.close()
    for connection in list(service.connections):
        connection.abort()
    await server.wait_closed()
    return 0


def _url(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _when_stdin_closes(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    # In a thread, since standard input may be a file or /dev/null, which no event loop can watch.
    def watch() -> None:
        with contextlib.suppress(OSError):  # a missing standard input counts as closed
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(call)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: a number from 0 to 65535")
    return int(text)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _raise_file_limit() -> None:
    """Raise the soft limit of descriptors, often 1,024, to the hard one: thousands of streams need as many descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems report a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
