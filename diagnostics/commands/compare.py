"""`diagnostics compare`: the experiment of `verify` for the user's own service, in any language.

Exit code 0 only if the service of --after is BOUNDED, 1 if not, INCONCLUSIVE included; 2 for a bad template; 3 where a
command dies, never listens, or answers errors. The decision on --before has no influence: it shows whether the work reveals a
defect.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from ..analysis.decision import Decision, Plan
from ..errors import UsageError
from ..proof.experiment.comparison import AFTER, BEFORE, UNITS, Comparison, comparison, on_commands
from ..proof.experiment.experiment import Outcome
from ..proof.experiment.session import run_scenario
from ..proof.report import tables as report
from ..proof.report.comparison import to_json
from ..proof.report.incident.proof import write_reports
from ..proof.report.remarks import basis, remarks
from ..proof.subjects.command import command_of
from ..proof.subjects.subject import START_SECONDS
from ._writing import check_file, make_folder
from .load import add_request, message_of, positive, share, whole

__all__ = ["configure", "run"]

_LEAST_GROWTH = 32 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--before", required=True, metavar="CMD", help="the service as it was; {port} becomes its port")
    parser.add_argument("--after", required=True, metavar="CMD", help="the service with the fix")
    parser.add_argument("--path", required=True, metavar="/PATH", help="of the event stream")
    add_request(parser, tls=False)
    work = parser.add_argument_group("the work")
    work.add_argument("--streams", type=whole(1), default=8, metavar="N", help="open together (8)")
    work.add_argument("--slow", type=share, default=0.5, metavar="50%", help="of them read slowly (50%%)")
    work.add_argument("--slow-rate", type=whole(1), default=16 * 1024, metavar="BYTES", help="a second (16384)")
    work.add_argument("--seconds", type=positive, default=4.0, metavar="S", help="length of a round (4)")
    work.add_argument(
        "--transient",
        type=positive,
        default=2.0,
        metavar="S",
        help="of it not judged: buffers fill, that is no growth (2)",
    )
    work.add_argument("--rounds", default="4,6,8", metavar="N,...", help="looks: decide after so many rounds (4,6,8)")
    work.add_argument(
        "--least",
        type=whole(1),
        default=4 * 1024,
        metavar="BYTES",
        help="the least that matters of an ended stream (4096)",
    )
    work.add_argument(
        "--least-growth",
        type=whole(1),
        metavar="BYTES",
        help="the least that matters of an open stream in a second (32768, or --least where that is more)",
    )
    parser.add_argument(
        "--start", type=positive, default=START_SECONDS, metavar="S", help="wait so long for a listener (30)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the clients' arrival (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write report.html, report.md, numbers.json, profiles"
    )
    parser.add_argument("--no-capture", action="store_true", help="decide only, without memray and flame graphs")


def run(arguments: argparse.Namespace) -> int:
    plan = comparison_of(arguments)
    check_file(arguments.json, "--json")
    make_folder(arguments.report, "--report")
    outcome = run_scenario(
        plan,
        [BEFORE, AFTER],
        seed=arguments.seed,
        capture=not arguments.no_capture,
        bench=on_commands(arguments.start),
    )
    command = _command(arguments)
    console = report.console()
    report.print_table([outcome], console, claims=False, units=UNITS)
    report.print_held(outcome, console)
    for side in outcome.sides:
        by = f" ({stands_on})" if (stands_on := basis(side)) else ""
        console.print(f"{side.side}: {side.decision}{by}  {side.app}", markup=False, highlight=False, soft_wrap=True)
    for remark in remarks(outcome):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)
    numbers = to_json(outcome, command)
    if arguments.report:
        report.write_folder([outcome], numbers, arguments.report)
        for page in write_reports([outcome], numbers, arguments.report):
            console.print(f"report: {page}", highlight=False, soft_wrap=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0 if decision_of(outcome, AFTER) is Decision.BOUNDED else 1


def decision_of(outcome: Outcome, name: str) -> Decision:
    return next(side.decision for side in outcome.sides if side.side == name)


def comparison_of(arguments: argparse.Namespace) -> Comparison:
    """The comparison that the options describe. Raises UsageError; starts nothing."""
    for side in (BEFORE, AFTER):
        command_of(getattr(arguments, side), f"--{side}")
    if not arguments.path.startswith("/"):
        raise UsageError(f"--path {arguments.path!r} is no path", remedy="for example --path /stream")
    try:
        plan = Plan(looks=tuple(int(word) for word in arguments.rounds.split(",")))
    except ValueError as error:
        raise UsageError(f"--rounds {arguments.rounds!r}: {error}", remedy="for example --rounds 4,6,8") from error
    return comparison(
        {side: getattr(arguments, side) for side in (BEFORE, AFTER)},
        arguments.path,
        message_of(arguments),
        streams=arguments.streams,
        slow=arguments.slow,
        slow_bytes_per_second=arguments.slow_rate,
        seconds=arguments.seconds,
        transient_seconds=arguments.transient,
        least_bytes=arguments.least,
        least_growth=arguments.least_growth or max(_LEAST_GROWTH, arguments.least),
        plan=plan,
    )


def _command(arguments: argparse.Namespace) -> str:
    """The command that repeats the comparison, without headers, which may have a key."""
    words = ["diagnostics", "compare"]
    for name in ("before", "after", "path", "method", "body", "streams", "slow", "slow_rate", "seconds", "transient"):
        if getattr(arguments, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    for name in ("rounds", "least", "least_growth", "seed"):
        if getattr(arguments, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    return shlex.join(words)
