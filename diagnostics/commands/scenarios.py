"""`diagnostics scenarios`: the known blow-ups, each with its claim and its expected decisions."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from ..proof.scenarios import SCENARIOS

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        listing = [
            {
                "name": known.name,
                "claim": known.claim,
                "apps": dict(known.apps),
                "expected": {side: str(decision) for side, decision in known.expected.items()},
            }
            for known in SCENARIOS.values()
        ]
        print(json.dumps(listing, indent=1))
        return 0
    table = Table(header_style="bold")
    for heading in ("scenario", "claim", "expected"):
        table.add_column(heading, no_wrap=heading == "scenario")
    for known in SCENARIOS.values():
        table.add_row(
            known.name, known.summary, "\n".join(f"{side}: {decision}" for side, decision in known.expected.items())
        )
    Console().print(table)
    return 0
