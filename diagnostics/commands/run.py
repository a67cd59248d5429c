"""`diagnostics run -- CMD ...`: any Python service, unchanged, with a monitor beside it.

CMD keeps its standard streams, and is started, signalled, stopped and ended as without us (`_foreground.py`); the monitor's
address is printed to standard error first. The monitor is a process of its own: if it ends, CMD goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import contextlib
import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import inject
from ..agent.instrument.monitor_process import DEFAULT_LISTEN, address_of, bind, hold
from ..errors import UsageError
from ..protocol import default_root, private_folder
from ._fleet_words import add_fleet
from ._foreground import Foreground, end_like

if TYPE_CHECKING:
    from ..monitor.service import Monitor

__all__ = ["configure", "run"]

# Only the monitor's process imports these: a missing one must be reported before anything is started.
for _module in ("prometheus_client", "starlette", "uvicorn"):
    if importlib.util.find_spec(_module) is None:
        raise ModuleNotFoundError(f"No module named {_module!r}", name=_module)

# Writing a black box's last records takes a second or two; a monitor that takes longer is not waited for.
_LAST_WORDS_SECONDS = 15.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="default %(default)s; port 0: any"
    )
    add_fleet(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ...", help="the service's own command")


def run(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise UsageError("no command to run", remedy="diagnostics run -- python -m uvicorn app:app")
    with bind(arguments.listen) as listener:
        address = address_of(listener)
        root = Path(default_root(address))
        private_folder(root)
        _compile_agent()
        print(f"diagnostics http://{address}/debug/memory", file=sys.stderr, flush=True)
        control, orders = os.pipe()
        up, say_up = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(orders)
            os.close(up)
            _be_monitor(listener, root, arguments.fleet, control, say_up)
            return 0
        os.close(control)
        os.close(say_up)
    monitor = _MonitorProcess(pid, orders)
    if not os.read(up, 1):  # it has printed the error
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    os.close(up)
    return _run(command, _environment(root, f"http://{address}"), monitor)


def _compile_agent() -> None:
    """Keep the agent as bytecode without docstrings, which takes less memory in a service (`agent/inject/importer.py`).

    Half a second, once. Nothing where no bytecode is to be written, or can be; a service with another Python loads its own.
    """
    if not sys.dont_write_bytecode:
        package = Path(inject.HOOK_FOLDER).parents[2]
        compileall.compile_dir(package, maxlevels=0, quiet=2, optimize=2)
        compileall.compile_dir(package / "agent", quiet=2, optimize=2)


def _run(command: list[str], environment: dict[str, str], monitor: _MonitorProcess) -> int:
    foreground = Foreground(monitor.has_ended)
    try:
        foreground.start(command, environment)
    except UsageError:
        monitor.close()
        raise
    monitor.order(f"watch {foreground.pid}")
    status = foreground.wait()
    monitor.order(f"exited {foreground.pid} {os.waitstatus_to_exitcode(status)}")
    monitor.close()
    foreground.linger(lambda: not monitor.alive, _LAST_WORDS_SECONDS)
    return end_like(status)


class _MonitorProcess:
    """The monitor's process, for its parent: it ends when the pipe of its orders is closed."""

    def __init__(self, pid: int, orders: int) -> None:
        self._pid = pid
        self._orders = orders
        self._closed = False
        self.alive = True

    def order(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended; `has_ended` reports that
            os.write(self._orders, f"{line}\n".encode())

    def close(self) -> None:
        self._closed = True
        os.close(self._orders)

    def has_ended(self, pid: int) -> None:
        """To be called with the pid of every child that has ended."""
        if pid != self._pid:
            return
        self.alive = False
        if not self._closed:
            print("diagnostics: the monitor has ended; the service goes on without it", file=sys.stderr, flush=True)


def _be_monitor(listener: socket.socket, root: Path, fleet: list[str], control: int, up: int) -> None:
    """The monitor's whole life, in the child that was forked for it."""
    # A process group of its own, because Ctrl-C is for CMD. The same session, because with autogroups (sched(7)) the kernel
    # shares CPU time between sessions, and a nice value counts within one only.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a background process may write to the terminal, too
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # Where the whole cgroup is signalled (systemd), CMD ends, and the monitor must still record how. Not SIG_IGN, which
        # the monitor's children would inherit.
        signal.signal(number, _leave_it_to_orders)
    from ..monitor.loop import run_monitor
    from ..monitor.service import Monitor

    with hold(root):
        monitor = Monitor(listener, root, fleet)
        os.write(up, b"x")
        os.close(up)
        run_monitor(_obey(monitor, control))


def _leave_it_to_orders(*_: object) -> None:
    """A handler that does nothing: the monitor ends when its control pipe is closed."""


async def _obey(monitor: Monitor, control: int) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(control, "rb"))

    async def until() -> None:
        async for line in reader:
            order, *numbers = line.split()
            if order == b"watch":
                monitor.recorder.watch(int(numbers[0]))
            else:
                monitor.recorder.exited(int(numbers[0]), int(numbers[1]))

    try:
        await monitor.serve(until)
        monitor.targets.workers()  # removes the sockets of processes that a signal has killed
    finally:
        transport.close()


def _environment(root: Path, url: str) -> dict[str, str]:
    hook = inject.HOOK_FOLDER
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": f"{hook}{os.pathsep}{path}" if path else hook,
        "DIAGNOSTICS_DIR": str(root),
        # `instrument(app, monitor=True)` in CMD uses this monitor instead of starting one.
        "DIAGNOSTICS_MONITOR_URL": url,
    }
