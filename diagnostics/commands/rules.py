"""`diagnostics rules URL [--dry-run] [FILE]`: a monitor's rules, and when they fired or would have fired.

`--dry-run` applies them to a worker's whole recording, without capturing anything; with FILE the rules in it (TOML).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..analysis.units import format_moment, printable
from ..errors import UsageError
from ..monitor.judging.capture_rules import parse
from ._asking import asked, client_of

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the monitor's address, for example http://127.0.0.1:6060")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="with --dry-run: rules to try, as TOML")
    parser.add_argument("--dry-run", action="store_true", help="when they would have fired over all that is recorded")
    parser.add_argument("--worker", help="which worker's recording (default: the first)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.file is not None and not arguments.dry_run:
        raise UsageError(f"{arguments.file} can only be tried", remedy="add --dry-run, or set DIAGNOSTICS_RULES to it")
    query = {"dry_run": "1"} if arguments.dry_run else {}
    if arguments.worker is not None:
        query["worker"] = arguments.worker
    with client_of(arguments.url) as client:
        if arguments.file is None:
            answer = asked(client, "GET", "/debug/memory/rules", params=query)
        else:
            text = _text(arguments.file)
            parse(text, str(arguments.file))  # here, so that an error has the file's name
            answer = asked(client, "POST", "/debug/memory/rules", params=query, content=text)
    _show(answer, Console(), dry=arguments.dry_run)
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", remedy="name a TOML file") from error


def _show(answer: dict[str, Any], console: Console, dry: bool) -> None:
    table = Table(box=None)
    for column in ("rule", "fires when", "captures", "cooldown", "limit"):
        table.add_column(column)
    for rule in answer["rules"]:
        row = (
            rule["name"],
            rule["says"],
            rule["capture"] or "logs",
            f"{rule['cooldown']:g} s",
            f"{rule['limit']} a day",
        )
        table.add_row(*(Text(printable(word)) for word in row))
    console.print(table)
    firings = answer["firings"]
    what = "would have fired" if dry else "fired"
    console.print(f"{what} {len(firings)} times" if firings else f"nothing {what}")
    for fired in firings:
        outcome = "" if dry else f"  {fired['outcome']}"
        console.print(
            printable(f"{format_moment(fired['time'])}  {fired['rule']}: {fired['says']}{outcome}"), markup=False
        )
