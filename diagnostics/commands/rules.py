"""`diagnostics rules`: a monitor's rules and when they fired or would have fired; a file of rules checked; its schema.

    diagnostics rules URL                       the rules at work, and their firings
    diagnostics rules URL --dry-run [FILE]      when they, or those in FILE, would have fired over all that is recorded
    diagnostics rules --check FILE              every fault of a file with its line; exit 2 where there is one
    diagnostics rules --schema                  the JSON schema of such files

A file is one of TOML; docs/rules.md has its keys.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..analysis.units import format_moment, printable
from ..errors import UsageError
from ..monitor.rules.references import missing
from ..monitor.rules.rule import Command
from ..monitor.rules.rule_file import parse, read
from ..monitor.rules.schema import schema
from ..monitor.rules.trusted import read_rules
from ._asking import asked, client_of

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="the monitor's address, for example http://127.0.0.1:6060"
    )
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="with --dry-run: rules to try, as TOML")
    parser.add_argument("--dry-run", action="store_true", help="when they would have fired over all that is recorded")
    parser.add_argument("--worker", help="which worker's recording (default: the first)")
    parser.add_argument("--check", metavar="FILE", type=Path, help="say what is wrong with a file of rules")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of a file of rules")


def run(arguments: argparse.Namespace) -> int:
    if arguments.schema:
        print(json.dumps(schema(), indent=1))
        return 0
    if arguments.check is not None:
        return _check(arguments.check)
    if arguments.url is None:
        raise UsageError("no monitor is named", remedy="diagnostics rules http://127.0.0.1:6060, or --check FILE")
    if arguments.file is not None and not arguments.dry_run:
        raise UsageError(f"{arguments.file} can only be tried", remedy="add --dry-run, or set DIAGNOSTICS_RULES to it")
    query = {"dry_run": "1"} if arguments.dry_run else {}
    if arguments.worker is not None:
        query["worker"] = arguments.worker
    with client_of(arguments.url) as client:
        if arguments.file is None:
            answer = asked(client, "GET", "/debug/memory/rules", params=query)
        else:
            text, _ = read_rules(arguments.file)
            parse(text, str(arguments.file))  # here, so that an error has the file's name
            answer = asked(client, "POST", "/debug/memory/rules", params=query, content=text)
    _show(answer, Console(), dry=arguments.dry_run)
    return 0


def _check(path: Path) -> int:
    """Prints each fault to standard error. What the file names and is not there is no fault of the file, but a note."""
    text, untrusted = read_rules(path)
    rules, faults = read(text)
    said = [str(fault) for fault in faults]
    if untrusted and any(isinstance(action, Command) for rule in rules for action in rule.actions):
        said.append(
            f"it calls a command, and {untrusted}; let its owner alone write the file and the folders above it, or "
            "leave the command out"
        )
    for each in said:
        print(printable(f"{path}: {each}"), file=sys.stderr)
    if said:
        return 2
    for name, error in missing(rules, os.environ):
        print(printable(f"{path}: note: rule {name!r}: {error.message} here; {error.remedy}"), file=sys.stderr)
    for rule in rules:
        done = ", ".join(action.do for action in rule.actions) or "log"
        print(printable(f"{rule.name}: {rule.says}: {done}"))
    print(f"{path}: {len(rules)} rules, no fault")
    return 0


def _show(answer: dict[str, Any], console: Console, dry: bool) -> None:
    table = Table(box=None)
    for column in ("rule", "fires when", "does", "cooldown", "limit"):
        table.add_column(column)
    for rule in answer["rules"]:
        hour = f", {rule['per_hour']} an hour" if rule.get("per_hour") else ""
        row = (
            rule["name"],
            rule["says"],
            _does(rule),
            f"{rule['cooldown']:g} s",
            f"{rule['limit']} a day{hour}",
        )
        table.add_row(*(Text(printable(word)) for word in row))
    console.print(table)
    firings = answer["firings"]
    what = "would have fired" if dry else "fired"
    console.print(f"{what} {len(firings)} times" if firings else f"nothing {what}")
    for fired in firings:
        line = f"{format_moment(fired['time'])}  {fired['rule']}: {fired['says']}"
        if not dry:
            line += f"  {fired['outcome']}"
            # The outcome above is the capture's.
            line += "".join(
                f"; {do} {outcome}{f' ({reason})' if reason else ''}"
                for do, outcome, reason in fired.get("actions", ())
                if do != "capture"
            )
        console.print(printable(line), markup=False)


def _does(rule: dict[str, Any]) -> str:
    """Its actions; a monitor of before had a capture only."""
    actions = rule.get("actions") or ([{"do": "capture", "kind": rule["capture"]}] if rule.get("capture") else [])
    said = [f"{each['do']} {each['kind']}" if "kind" in each else str(each["do"]) for each in actions]
    return ", ".join(said) or "logs"
