"""`diagnostics verify [NAME ...]`: prove that a blow-up is real and that its fix is a fix.

Exit code 0 only if every named scenario is verified; 1 if not, INCONCLUSIVE included; 2 for an unknown scenario; 3 where an
app under study fails. With --relay the user's own relay is a third subject of each scenario, and has to be BOUNDED. With
--self-test the broken app takes the place of the fixed one, and 0 means that none of them was BOUNDED.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import TargetError, UsageError
from ..proof.experiment.experiment import Outcome
from ..proof.experiment.session import run_scenarios
from ..proof.report import tables as report
from ..proof.report.incident.proof import write_reports
from ..proof.report.remarks import remarks
from ..proof.scenario import BROKEN, FIXED, RELAY, Scenario
from ..proof.scenarios import SCENARIOS, scenario
from ..proof.subjects.relay_file import read_relay_file
from ._writing import check_file, make_folder
from .load import whole

__all__ = ["configure", "run"]

# The apps of one experiment have their rounds concurrently and keep two cores busy; more experiments at once prolong rounds.
_CORES_OF_A_JOB = 2
_MOST_JOBS = 2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="scenarios (default: all), see `diagnostics scenarios`"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the upstream and of the clients' arrival (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a test report for a build server")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write report.html, report.md, numbers.json, profiles"
    )
    parser.add_argument("--no-capture", action="store_true", help="decide only, without memray and flame graphs")
    parser.add_argument(
        "--jobs",
        type=whole(1),
        default=max(1, min(_MOST_JOBS, len(os.sched_getaffinity(0)) // _CORES_OF_A_JOB)),
        metavar="N",
        help="experiments at a time (default: 1, on four cores and more 2)",
    )
    own = parser.add_argument_group("an app of one's own in place of the scenario's (reads UPSTREAM_BASE_URL)")
    own.add_argument("--broken", metavar="MODULE:APP")
    own.add_argument("--fixed", metavar="MODULE:APP")
    own.add_argument(
        "--self-test",
        action="store_true",
        help="each scenario's broken app in the place of its fixed one: every one has to be refused",
    )
    relay = parser.add_argument_group("a relay of one's own under the same work")
    relay.add_argument(
        "--relay", type=Path, metavar="FILE", help="how to run it: a TOML file, see docs/verification.md"
    )
    relay.add_argument("--relay-alone", action="store_true", help="without the scenario's own two apps")


def run(arguments: argparse.Namespace) -> int:
    wanted, skipped = _wanted(arguments)
    capture = not arguments.no_capture
    if arguments.report and not capture:
        raise UsageError("--report asks for flame graphs and --no-capture refuses them", remedy="leave one of them out")
    check_file(arguments.json, "--json")
    check_file(arguments.junit, "--junit")
    make_folder(arguments.report, "--report")
    console = report.console()
    results = run_scenarios(wanted, seed=arguments.seed, capture=capture, jobs=arguments.jobs)
    outcomes = [result for result in results if isinstance(result, Outcome)]
    failures = {
        known.name: result
        for (known, _), result in zip(wanted, results, strict=True)
        if isinstance(result, TargetError)
    }
    numbers = report.to_json(outcomes, _command(arguments))
    report.print_table(outcomes, console)
    for outcome in outcomes:
        report.print_held(outcome, console)
        for remark in remarks(outcome):
            console.print(f"{outcome.scenario.name}, {remark}", markup=False, highlight=False, soft_wrap=True)
    for name, reason in skipped.items():
        console.print(f"{name}: the relay is not run, {reason}", markup=False, highlight=False, soft_wrap=True)
    _write(arguments, outcomes, numbers, console)
    open_claims = [outcome.scenario.name for outcome in outcomes if not outcome.verified]
    if open_claims:
        console.print(f"not verified: {', '.join(open_claims)}", highlight=False, soft_wrap=True)
    if failures:
        raise _together(failures)
    if arguments.self_test:
        accepted = [outcome.scenario.name for outcome in outcomes if outcome.verified]
        said = f"accepted: {', '.join(accepted)}" if accepted else "every one was refused, as it has to be"
        console.print(f"broken apps as fixes: {said}", highlight=False, soft_wrap=True)
        return 1 if accepted else 0
    return 1 if open_claims else 0


def _write(arguments: argparse.Namespace, outcomes: list[Outcome], numbers: dict[str, Any], console: Console) -> None:
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    if arguments.junit:
        report.write_junit(outcomes, arguments.junit)
    if arguments.report:
        for graph in report.write_folder(outcomes, numbers, arguments.report):
            console.print(f"flame graph: {graph}", highlight=False, soft_wrap=True)
        for page in write_reports(outcomes, numbers, arguments.report):
            console.print(f"report: {page}", highlight=False, soft_wrap=True)


def _wanted(arguments: argparse.Namespace) -> tuple[list[tuple[Scenario, list[str]]], dict[str, str]]:
    """The experiments with their sides, and scenario -> why the relay is left out of it."""
    chosen = [_chosen(name, arguments) for name in arguments.names or SCENARIOS]
    if arguments.self_test:
        if arguments.broken or arguments.fixed or arguments.relay:
            raise UsageError("--self-test has apps of its own", remedy="leave out --broken, --fixed and --relay")
        return [(_with_apps(known, {FIXED: known.apps[BROKEN]}), [FIXED]) for known in chosen], {}
    if arguments.relay is None:
        if arguments.relay_alone:
            raise UsageError("--relay-alone: which relay?", remedy="for example --relay relay/proof.toml")
        return [(known, [BROKEN, FIXED]) for known in chosen], {}
    file = read_relay_file(arguments.relay, SCENARIOS)
    apps = [] if arguments.relay_alone else [BROKEN, FIXED]
    wanted: list[tuple[Scenario, list[str]]] = []
    for known in chosen:
        relay = file.relay_for(known.name)
        if relay is not None:
            wanted.append((known.with_relay(relay), [*apps, RELAY]))
        elif apps:
            wanted.append((known, apps))
    names = {known.name for known in chosen}
    return wanted, {name: reason for name, reason in file.skipped.items() if name in names}


def _together(failures: dict[str, TargetError]) -> TargetError:
    """One error for all scenarios that failed, each with its name."""
    message = "\n".join(f"{name}: {error.message}" for name, error in failures.items())
    first = next(iter(failures.values()))
    return TargetError(message, remedy=first.remedy, code=first.code)


def _chosen(name: str, arguments: argparse.Namespace) -> Scenario:
    known = scenario(name)
    own = {side: app for side, app in ((BROKEN, arguments.broken), (FIXED, arguments.fixed)) if app}
    if own and len(arguments.names) != 1:
        raise UsageError("--broken and --fixed replace the apps of one scenario", remedy="name exactly one scenario")
    for app in own.values():
        if ":" not in app:
            raise UsageError(f"{app!r} is not MODULE:APP", remedy="for example my_service.fixed:app")
    return _with_apps(known, own)


def _with_apps(known: Scenario, own: Mapping[str, str]) -> Scenario:
    # Server options of a scenario's app are not used for a replacement.
    options = {side: words for side, words in known.options.items() if side not in own}
    return replace(known, apps={**known.apps, **own}, options=options)


def _command(arguments: argparse.Namespace) -> str:
    words = ["diagnostics", "verify", *(arguments.names or SCENARIOS), "--seed", str(arguments.seed)]
    for flag in ("broken", "fixed"):
        if getattr(arguments, flag):
            words += [f"--{flag}", getattr(arguments, flag)]
    if arguments.self_test:
        words.append("--self-test")
    if arguments.relay is not None:
        words += ["--relay", str(arguments.relay), *(["--relay-alone"] if arguments.relay_alone else [])]
    return shlex.join(words)
