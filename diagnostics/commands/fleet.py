"""`diagnostics fleet --targets WORD status|capture|top|diff`: many monitors at once, as one.

A replica that does not answer is a row with the error, and the others are shown all the same. Exit code 0: no replica has an
alarm (status), or every capture was taken; 1: one has an alarm; 3: no monitor answers, or a capture failed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..analysis.algebra import average, difference, labelled, merge
from ..analysis.formats.text import render_top
from ..analysis.profile import Profile
from ..analysis.units import printable
from ..analysis.views import top
from ..errors import DiagnosticsError, TargetError, UsageError
from ..fleet.answers import row_of
from ..fleet.replicas import Replica, odd
from ..fleet.table import COLUMNS, cells_of, details_of
from ..fleet.targets import Target, resolve
from ..monitor.captures.kinds import KINDS
from ._asking import asked, client_of
from ._landing import id_of
from ._profiles import load, write
from ._taking import download, take

__all__ = ["configure", "run"]

# Monitors that are queried at the same time.
_AT_ONCE = 32
# Columns where output goes to a file: wide enough that no name is cut.
_FILE_WIDTH = 160
_T = TypeVar("_T")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets", metavar="WORD", action="append", required=True,
        help="addresses with commas, dns:NAME:PORT, prometheus:URL?QUERY, or k8s:LABEL=VALUE; repeatable",
    )  # fmt: skip
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=5.0, help="for each answer; default: 5")
    actions = parser.add_subparsers(metavar="status|capture|top|diff", required=True, dest="action")
    status = actions.add_parser("status", help="one table: verdict, RSS, growth, streams, version; the odd one out")
    status.add_argument("--json", action="store_true", help="the rows as JSON")
    for name, says in (
        ("capture", "a capture of every replica, and all of them as one profile with the label `replica`"),
        ("top", "the same without files: which functions hold the memory of all replicas together"),
        ("diff", "what one replica has more than the others have on average"),
    ):
        action = actions.add_parser(name, help=says)
        action.add_argument("--kind", choices=sorted(KINDS), default="tracemalloc", help="default: tracemalloc")
        action.add_argument("--seconds", type=float, help="length of the window")
        action.add_argument("--force", action="store_true", help="even if a service would not keep up meanwhile")
        if name == "capture":
            action.add_argument("--odd", action="store_true", help="only of the replica that is not as the others")
            action.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: here")
        else:
            action.add_argument("-n", metavar="N", type=int, default=20, help="how many rows; default: 20")
        if name == "diff":
            action.add_argument("--replica", metavar="NAME", help="which one; default: the odd one out")


def run(arguments: argparse.Namespace) -> int:
    targets = resolve(arguments.targets)
    action: Callable[[argparse.Namespace, list[Target]], int] = {
        "status": _status, "capture": _capture, "top": _top, "diff": _diff,
    }[arguments.action]  # fmt: skip
    return action(arguments, targets)


# Status


def _status(arguments: argparse.Namespace, targets: list[Target]) -> int:
    replicas = _queried(targets, arguments.timeout)
    reasons = odd(replicas)
    if arguments.json:
        rows = [{**asdict(replica), "odd": reasons.get(replica.name)} for replica in replicas]
        print(json.dumps({"schema": "highwater.fleet/1", "replicas": rows}, indent=1))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, _FILE_WIDTH)
        console.print(_table(replicas, reasons))
        for replica in replicas:
            for line in _details_of(replica, reasons):
                console.print(line, soft_wrap=True)
    if not any(replica.answers for replica in replicas):
        raise TargetError(
            f"none of {len(replicas)} monitors answers: {replicas[0].error}",
            remedy="are these the monitors' addresses?",
        )
    return int(any(replica.alarm for replica in replicas))


def _queried(targets: Sequence[Target], timeout: float) -> list[Replica]:
    """Each monitor's answer as a row, in the order of the targets."""

    def one(target: Target) -> Replica:
        try:
            with client_of(target.url, timeout) as client:
                return row_of(target.name, target.url, asked(client, "GET", "/debug/memory"))
        except DiagnosticsError as error:
            return Replica(target.name, target.url, error=str(error))

    return _concurrently(one, targets)


def _concurrently(work: Callable[[Target], _T], targets: Sequence[Target]) -> list[_T]:
    with ThreadPoolExecutor(min(_AT_ONCE, len(targets)) or 1) as pool:
        return list(pool.map(work, targets))


def _table(replicas: list[Replica], reasons: dict[str, str]) -> Table:
    table = Table(box=None)
    for column, number in COLUMNS:
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for replica in replicas:
        name, verdict, *others, odd_one = map(printable, cells_of(replica, reasons.get(replica.name)))
        style = "red" if replica.error or replica.alarm else "green"
        table.add_row(Text(name), Text(verdict, style=style), *map(Text, others), Text(odd_one, style="bold red"))
    return table


def _details_of(replica: Replica, reasons: dict[str, str]) -> list[Text]:
    """Lines on a replica beyond its row."""
    lines = details_of(replica, reasons.get(replica.name))
    return [Text("\n".join(map(printable, line.split("\n")))) for line in lines]


# Captures


def _capture(arguments: argparse.Namespace, targets: list[Target]) -> int:
    console = Console(stderr=True)
    if arguments.odd:
        targets = [_odd_one(targets, arguments.timeout)]
    profiles, failed = _profiles_taken(arguments, targets, arguments.output, console)
    if len(profiles) > 1:
        path = arguments.output / "profile.json"
        write(json.dumps(merge(list(profiles.values())).to_json()), path)
        print(path)
    return 3 if failed else 0


def _top(arguments: argparse.Namespace, targets: list[Target]) -> int:
    with tempfile.TemporaryDirectory(prefix="highwater-fleet-") as folder:
        profiles, failed = _profiles_taken(arguments, targets, Path(folder), Console(stderr=True), quiet=True)
    _show(merge(list(profiles.values())), arguments.n)
    return 3 if failed else 0


def _diff(arguments: argparse.Namespace, targets: list[Target]) -> int:
    if len(targets) < 2:
        raise UsageError("one replica has no others to differ from", remedy="name several with --targets")
    names = {target.name: target for target in targets}
    if arguments.replica is None:
        chosen = _odd_one(targets, arguments.timeout).name
    elif arguments.replica in names:
        chosen = arguments.replica
    else:
        raise UsageError(f"there is no replica {arguments.replica!r}", remedy=f"choose from: {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="highwater-fleet-") as folder:
        profiles, failed = _profiles_taken(
            arguments, targets, Path(folder), Console(stderr=True), quiet=True, label=False
        )
    if chosen not in profiles or len(profiles) < 2:
        raise TargetError(f"{chosen} and another one were to be captured, and were not", remedy="see above why")
    own = profiles.pop(chosen)
    print(f"what {printable(chosen)} has more than {len(profiles)} others have on average")
    _show(difference(own, average(list(profiles.values()))), arguments.n)
    return 3 if failed else 0


def _odd_one(targets: list[Target], timeout: float) -> Target:
    """The only replica that differs from the others. Raises TargetError where there is none, or more than one."""
    reasons = odd(_queried(targets, timeout))
    if len(reasons) != 1:
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise TargetError(
            f"{len(reasons)} replicas are not as the others{f' ({listed})' if listed else ''}",
            remedy="diagnostics fleet ... status shows them; name the one to look at",
        )
    name = next(iter(reasons))
    return next(target for target in targets if target.name == name)


def _profiles_taken(
    arguments: argparse.Namespace, targets: list[Target], output: Path, console: Console, *,
    quiet: bool = False, label: bool = True,
) -> tuple[dict[str, Profile], int]:  # fmt: skip
    """(replica -> profile of its capture, number of captures that failed); prints the errors of these.

    Raises TargetError where all failed.
    """
    options: dict[str, Any] = {"kind": arguments.kind}
    if arguments.seconds is not None:
        options["seconds"] = arguments.seconds
    if arguments.force:
        options["force"] = True

    def one(target: Target) -> tuple[list[Path], Profile] | DiagnosticsError:
        try:
            with client_of(target.url) as client:
                capture = take(client, options, Console(quiet=True))
                if capture["state"] != "done":
                    error = capture.get("error") or {"message": f"the capture was {capture['state']}"}
                    return TargetError(error["message"], remedy=error.get("remedy", ""))
                # Not the replica's name, which may be any text: the capture's id has a fixed form.
                paths = download(client, capture, output / f"{targets.index(target):03d}-{id_of(capture)}")
        except DiagnosticsError as error:
            return error
        stacks = next((path for path in paths if path.name == "profile.json"), None)
        if stacks is None:
            return TargetError(
                f"a capture of {arguments.kind} came without its profile", remedy="is it a monitor of ours?"
            )
        profile = load(stacks, "leaked")
        return paths, labelled(profile, "replica", target.name) if label else profile

    profiles: dict[str, Profile] = {}
    failed = 0
    for target, came in zip(targets, _concurrently(one, targets), strict=True):
        if isinstance(came, DiagnosticsError):
            failed += 1
            console.print(escape(f"{printable(target.name)}: {came}"), soft_wrap=True)
            continue
        paths, profiles[target.name] = came
        for path in paths if not quiet else ():
            print(path)
    if not profiles:
        raise TargetError("no replica was captured", remedy="see above why")
    return profiles, failed


def _show(profile: Profile, count: int) -> None:
    # tracemalloc's frames have no functions.
    named = any(frame.function for sample in profile.samples for frame in sample.stack)
    largest = top(profile, 0, by="function" if named else "line", cumulative=False)
    write(render_top(profile, largest, max(0, count), 0), None)
