"""`diagnostics reproduce NAME`: run the broken app alone and watch its memory grow. Exit code 0 when it did, 1 when not."""

from __future__ import annotations

import argparse

from ..proof.experiment.session import run_scenario
from ..proof.report import tables as report
from ..proof.scenario import BROKEN
from ..proof.scenarios import scenario

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a scenario, see `diagnostics scenarios`")
    parser.add_argument("--seed", type=int, default=7, help="of the upstream and of the clients' arrival (default: 7)")
    parser.add_argument("--no-capture", action="store_true", help="measure only, without memray")


def run(arguments: argparse.Namespace) -> int:
    known = scenario(arguments.name)
    console = report.console()
    console.print(known.claim, highlight=False)
    outcome = run_scenario(known, [BROKEN], seed=arguments.seed, capture=not arguments.no_capture, show_rounds=True)
    report.print_table([outcome], console)
    report.print_held(outcome, console)
    console.print(
        f"its fix: diff {known.source}broken.py fixed.py; proved by: diagnostics verify {known.name}", highlight=False
    )
    return 0 if outcome.verified else 1
