"""`diagnostics watch PID`: a monitor for a running service, from outside, without an agent; it names what is unknown."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..agent.instrument.monitor_process import DEFAULT_LISTEN, address_of, bind, hold
from ..errors import NotFoundError
from ..monitor.kernel.process import alive
from ..monitor.loop import run_monitor
from ..monitor.service import Monitor
from ..protocol import default_root
from .monitor import until_stopped

__all__ = ["configure", "run"]

_UNSEEN = (
    "nothing is put into it: RSS, PSS, private memory, mapped files and stacks, connections, the cgroup's limit and the "
    "forecast are read from outside; Python's and malloc's parts, streams, tasks and captures are not seen: for these, "
    "`diagnostics attach PID`"
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", type=int, metavar="PID", help="a process of the service; its children are shown, too")
    parser.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="default %(default)s; port 0: any"
    )
    parser.add_argument(
        "--dir", type=Path, help="where recordings are kept (default DIAGNOSTICS_DIR, or by the address)"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.pid <= 0 or not alive(arguments.pid):
        raise NotFoundError(f"there is no process {arguments.pid} here", remedy="ps -e -o pid,args shows them")
    with bind(arguments.listen) as listener:
        address = address_of(listener)
        root = arguments.dir or Path(default_root(address))
        monitor = Monitor(listener, root)
        monitor.targets.watch(arguments.pid)
        print(f"diagnostics http://{address}/debug/memory", flush=True)
        print(_UNSEEN, flush=True)
        with hold(root):
            run_monitor(monitor.serve(until_stopped(with_stdin=False)))
    return 0
