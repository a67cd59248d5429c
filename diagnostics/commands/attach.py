"""`diagnostics attach PID`: loads the agent into a running service, with a monitor beside it, until Ctrl-C.

Everything then works as under `diagnostics run`. At the end the agents are unloaded, unless `--stay` was given. Where a
monitor of ours listens at the address already, the processes are added to it, and the command ends at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..agent.instrument.monitor_process import DEFAULT_LISTEN, address_of, bind, hold, is_held
from ..errors import DiagnosticsError, UsageError
from ..monitor.attach.attach import PATIENCE_SECONDS
from ..monitor.attach.check import Check, check
from ..monitor.loop import run_monitor
from ..monitor.service import Monitor
from ..protocol import default_root, private_folder
from ._attaching import Attaching, matching, workers_of

__all__ = ["configure", "run"]

# How often the supervisor's workers are searched for new ones.
_FOLLOW_SECONDS = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pids", nargs="*", type=int, metavar="PID", help="processes of the service")
    parser.add_argument("--match", metavar="TEXT", help="every process with TEXT in its command line")
    parser.add_argument(
        "--all-workers",
        type=int,
        metavar="PID",
        help="every worker below this supervisor, those that come later as well",
    )
    parser.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="the monitor's; default %(default)s"
    )
    parser.add_argument("--dir", type=Path, help="the registry's parent (default DIAGNOSTICS_DIR, or by the address)")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_SECONDS, metavar="SECONDS",
        help="how long the main thread has to come by; default %(default)g",
    )  # fmt: skip
    parser.add_argument("--stay", action="store_true", help="leave the agents in at the end; --detach takes them out")
    parser.add_argument("--check", action="store_true", help="only say whether it can work, and what stands in the way")
    parser.add_argument(
        "--detach", action="store_true", help="take the agents out again; without a PID all of this address"
    )
    parser.add_argument("--force", action="store_true", help="with --detach: in the middle of a capture, too")


def run(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.patience <= 3600:
        raise UsageError(f"--patience is {arguments.patience:g}", remedy="give seconds, from above 0 to 3600")
    if arguments.detach:
        return _detach(arguments)
    pids = _chosen(arguments)
    if not pids:
        raise UsageError("no process is named", remedy="diagnostics attach PID, --match TEXT or --all-workers PID")
    return _check(pids) if arguments.check else _attach(arguments, pids)


def _chosen(arguments: argparse.Namespace) -> list[int]:
    pids = list(arguments.pids)
    if arguments.match:
        pids += matching(arguments.match)
    if arguments.all_workers is not None:
        pids += workers_of(arguments.all_workers)
    return list(dict.fromkeys(pids))


def _check(pids: Sequence[int]) -> int:
    """Print the findings; returns the exit code: 0 where all processes can be attached to, 1 where one cannot."""
    checks = [check(pid) for pid in pids]
    for each in checks:
        print("\n".join(_lines_of(each)))
    return int(any(each.problems for each in checks))


def _lines_of(checked: Check) -> list[str]:
    runs = f"{checked.interpreter}, uid {checked.uid}" if checked.interpreter else "not looked into"
    if not checked.problems:
        return [f"process {checked.pid} ({runs}) can be attached to, by {checked.how}"]
    lines = [f"process {checked.pid} ({runs}) cannot be attached to:"]
    for problem in checked.problems:
        lines.append(f"  {problem.says}")
        lines += [f"    {place + ':':<12}{what}" for place, what in problem.remedy.items()]
    return lines


def _attach(arguments: argparse.Namespace, pids: Sequence[int]) -> int:
    try:
        listener = bind(arguments.listen)
    except UsageError as error:
        root = arguments.dir or Path(default_root(arguments.listen))
        if error.code != "address_in_use" or not is_held(root):
            raise
        return _outcome(Attaching(root, print).attach(pids, arguments.patience))
    signal.signal(signal.SIGTERM, _interrupt)  # until the monitor has its own handler: SIGTERM detaches, too
    with listener:
        address = address_of(listener)
        root = arguments.dir or Path(default_root(address))
        private_folder(root)
        attaching = Attaching(root, print)
        try:
            failed = attaching.attach(pids, arguments.patience)
            outcome = _outcome(failed)
            if attaching.made:
                monitor = Monitor(listener, root)
                print(f"diagnostics http://{address}/debug/memory", flush=True)
                with hold(root):
                    run_monitor(_serve(monitor, attaching, arguments))
                outcome = 0
        finally:
            left = [] if arguments.stay else attaching.detach(list(attaching.made), force=True)
    # not_found is no failure: the process has ended meanwhile, or another command has detached it.
    return max(outcome, _outcome([error for error in left if error.code != "not_found"]))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


async def _serve(monitor: Monitor, attaching: Attaching, arguments: argparse.Namespace) -> None:
    following = asyncio.create_task(_follow(attaching, arguments)) if arguments.all_workers is not None else None
    try:
        await monitor.serve(_interrupted)
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _interrupted() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()


async def _follow(attaching: Attaching, arguments: argparse.Namespace) -> None:
    """Attach to the workers that the supervisor starts from now on; each is tried once."""
    seen = set(attaching.made)
    while True:
        await asyncio.sleep(_FOLLOW_SECONDS)
        with contextlib.suppress(DiagnosticsError):  # it has no workers at the moment
            new = [pid for pid in await asyncio.to_thread(workers_of, arguments.all_workers) if pid not in seen]
            seen |= set(new)
            _outcome(await asyncio.to_thread(attaching.attach, new, arguments.patience))


def _detach(arguments: argparse.Namespace) -> int:
    attaching = Attaching(arguments.dir or Path(default_root(arguments.listen)), print)
    pids = _chosen(arguments) or attaching.recorded()
    if not pids:
        raise UsageError(
            f"nothing is attached to for the monitor at {arguments.listen}",
            remedy="give --listen as it was given to `diagnostics attach`, or the PID",
        )
    return _outcome(attaching.detach(pids, force=arguments.force))


def _outcome(failed: Sequence[DiagnosticsError]) -> int:
    for error in failed:
        print(f"diagnostics: {error}", file=sys.stderr)
    return max((error.exit_code for error in failed), default=0)
