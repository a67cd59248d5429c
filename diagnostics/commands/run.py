"""`diagnostics run -- CMD ...`: any Python service, unchanged, with a monitor beside it.

CMD keeps its standard streams; the monitor's address goes to standard error, first. Ends with CMD's exit code (128 + the
signal's number where a signal ended it, as a shell says it).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from ..agent import inject
from ..agent.beside import DEFAULT_LISTEN, address_of, bind, hold
from ..errors import UsageError
from ..monitor.service import Monitor
from ..protocol import default_root, private_folder

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="default %(default)s; port 0: any"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ...", help="the service's own command")


def run(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise UsageError("no command to run", remedy="diagnostics run -- python -m uvicorn app:app")
    with bind(arguments.listen) as listener:
        address = address_of(listener)
        root = Path(default_root(address))
        private_folder(root)
        print(f"diagnostics http://{address}/debug/memory", file=sys.stderr, flush=True)
        with hold(root):
            return asyncio.run(_run(command, Monitor(listener, root), root, f"http://{address}"))


async def _run(command: list[str], monitor: Monitor, root: Path, url: str) -> int:
    try:
        process = await asyncio.create_subprocess_exec(*command, env=_environment(root, url))
    except OSError as error:
        raise UsageError(
            f"cannot run {command[0]!r}: {error.strerror or error}", remedy="give the command as in a shell"
        ) from error
    monitor.targets.watch(process.pid)
    _pass_signals_on(process)
    try:
        code = 0

        async def until() -> None:
            nonlocal code
            code = await process.wait()
            monitor.recorder.exited(process.pid, code)

        await monitor.serve(until)
    finally:
        if process.returncode is None:
            process.terminate()
            code = await process.wait()
    return code if code >= 0 else 128 - code


def _environment(root: Path, url: str) -> dict[str, str]:
    hook = inject.HOOK_FOLDER
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": f"{hook}{os.pathsep}{path}" if path else hook,
        "DIAGNOSTICS_DIR": str(root),
        # Code in CMD that would start a monitor of its own (instrument(app, monitor=True)) finds this one.
        "DIAGNOSTICS_MONITOR_URL": url,
    }


def _pass_signals_on(process: asyncio.subprocess.Process) -> None:
    loop = asyncio.get_running_loop()

    def pass_on(number: int) -> None:
        # Ctrl-C in a terminal reaches CMD by itself; a second SIGINT would tell it to hurry.
        if process.returncode is None and not (number == signal.SIGINT and sys.stdin.isatty()):
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, pass_on, number)
