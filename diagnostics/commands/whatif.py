"""`diagnostics whatif --path /stream -- CMD {port}`: which allocator, or which of its settings, saves memory for this service.

Exit code 0 where a setting pays, 1 where none does, 2 for a bad command, 3 where the unchanged service does not serve.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..errors import DiagnosticsError, UsageError
from ..proof.clients.address import Address
from ..proof.clients.fleet.order import Order
from ..proof.clients.mix import Slow
from ..proof.experiment.session import until_done
from ..proof.subjects.command import command_of
from ..proof.subjects.subject import START_SECONDS
from ..proof.whatif.judge import best, judge
from ..proof.whatif.run import interleaved
from ..proof.whatif.settings import Setting, chosen, libraries, settings
from ..proof.whatif.table import conclusion, table, to_json
from ..proof.whatif.trial import Trial, Work
from ._writing import check_file
from .load import add_request, message_of, positive, share, whole

__all__ = ["configure", "run"]

# As wide as the table.
_TABLE_WIDTH = 120


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", required=True, metavar="/PATH", help="of the event stream")
    add_request(parser, tls=False)
    work = parser.add_argument_group("the work of each run, the same for all settings")
    work.add_argument("--streams", type=whole(1), default=16, metavar="N", help="open together (16)")
    work.add_argument("-n", "--total", type=whole(1), default=200, metavar="N", help="in all, or until --seconds (200)")
    work.add_argument("--seconds", type=positive, default=4.0, metavar="S", help="at most so long (4)")
    work.add_argument("--slow", type=share, default=0.25, metavar="25%", help="of the clients read slowly (25%%)")
    work.add_argument("--slow-rate", type=whole(1), default=16 * 1024, metavar="BYTES", help="a second (16384)")
    work.add_argument(
        "--settle", type=positive, default=3.0, metavar="S", help="after the work, before memory at rest is read (3)"
    )
    work.add_argument("--rounds", type=whole(3), default=5, metavar="N", help="runs of each setting (5)")
    parser.add_argument("--only", action="append", default=[], metavar="SETTING", help="repeatable; as in the table")
    parser.add_argument(
        "--start", type=positive, default=START_SECONDS, metavar="S", help="wait so long for a listener (30)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the service; {port} becomes its port"
    )


def run(arguments: argparse.Namespace) -> int:
    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not words:
        raise UsageError("which service?", remedy="end with -- and its command, for example -- python app.py {port}")
    if not arguments.path.startswith("/"):
        raise UsageError(f"--path {arguments.path!r} is no path", remedy="for example --path /stream")
    known, missing = settings(libraries(), glibc=platform.libc_ver()[0] == "glibc")
    tried = chosen(known, arguments.only)
    check_file(arguments.json, "--json")
    work = Work(command_of(shlex.join(words), "the command"), _order(arguments), arguments.settle, arguments.start)
    trials, failed = _shown(work, tried, arguments.rounds)
    rows = judge(trials)
    console = Console(width=None if Console().is_terminal else _TABLE_WIDTH)
    console.print(table(rows))
    for name, reason in failed.items():
        console.print(f"{name} was not tried: {reason}", markup=False, highlight=False, soft_wrap=True)
    for reason in missing if not arguments.only else ():
        console.print(f"not tried: {reason}", markup=False, highlight=False, soft_wrap=True)
    console.print(conclusion(rows, tried), markup=False, highlight=False, soft_wrap=True)
    if arguments.json:
        document = to_json(rows, tried, trials, failed, missing, _command(arguments, words))
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if best(rows) is not None else 1


def _order(arguments: argparse.Namespace) -> Order:
    return Order(
        address=Address("http", "127.0.0.1", 1, arguments.path),
        message=message_of(arguments),
        connections=arguments.streams,
        streams=arguments.total,
        seconds=arguments.seconds,
        shares={Slow.coarse(arguments.slow_rate): arguments.slow} if arguments.slow else {},
    )


def _shown(work: Work, tried: list[Setting], rounds: int) -> tuple[dict[str, list[Trial]], dict[str, str]]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=len(tried) * rounds)

        def doing(what: str, done: int) -> None:
            bar.update(task, description=what, completed=done)
            if not console.is_terminal:
                console.print(what, highlight=False)

        try:
            return until_done(interleaved(work, tried, rounds, doing))
        except* DiagnosticsError as several:
            raise several.exceptions[0] from several


def _command(arguments: argparse.Namespace, words: list[str]) -> str:
    """The command that repeats the trial, without headers, which may have a key."""
    repeated = ["diagnostics", "whatif"]
    for name in ("path", "method", "body", "streams", "total", "seconds", "slow", "slow_rate", "settle", "rounds"):
        if getattr(arguments, name) is not None:
            repeated += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    for name in arguments.only:
        repeated += ["--only", name]
    return shlex.join([*repeated, "--", *words])
