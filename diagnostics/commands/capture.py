"""`diagnostics capture URL`: take a capture of a running service, with a progress bar, and download its artifacts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import TargetError, UsageError
from ..monitor.captures.kinds import KINDS
from ._asking import client_of
from ._landing import id_of, worker_of
from ._taking import download, take

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the monitor's address, for example http://127.0.0.1:6060")
    parser.add_argument("--kind", required=True, metavar="KIND", help=f"one of {', '.join(KINDS)}, bundle (several)")
    parser.add_argument("--seconds", type=float, help="length of the window (default 5); objects: 0 is one census")
    parser.add_argument("--frames", type=int, help="tracemalloc: frames a stack, 1 to 25 (default 5)")
    parser.add_argument("--native", action="store_true", help="memray: native stacks too")
    parser.add_argument("--force", action="store_true", help="even if the service would not keep up meanwhile")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--worker", help="which worker, where there are several (default: the first)")
    which.add_argument("--all-workers", action="store_true", help="every worker, one after the other")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="where to put the artifacts")


def run(arguments: argparse.Namespace) -> int:
    options: dict[str, Any] = {"kind": arguments.kind}
    for name in ("seconds", "frames", "worker"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    if arguments.all_workers:
        if arguments.kind == "bundle":
            raise UsageError(
                "a bundle is of one worker", remedy="name it with --worker, or take one kind with --all-workers"
            )
        options["worker"] = "all"
    if arguments.native:
        options["native"] = True
    if arguments.force:
        options["force"] = True
    console = Console(stderr=True)
    with client_of(arguments.url) as client:
        if arguments.kind == "bundle":
            from . import _bundle

            return _bundle.collect(client, options, arguments.output, console)
        if arguments.all_workers:
            return _take_all(client, options, arguments.output, console)
        capture = take(client, options, console)
        _finished(client, capture, arguments.output / id_of(capture))
    _show(capture, console)
    return 0


def _take_all(client: httpx2.Client, options: dict[str, Any], output: Path, console: Console) -> int:
    """Capture every worker, each into a folder of its own. Returns the exit code: 0, or 3 where one failed."""
    group = take(client, options, console)
    failed = 0
    for capture in group["captures"]:
        try:
            _finished(client, capture, output / f"{id_of(capture)}-worker-{worker_of(capture)}")
            _show(capture, console)
        except TargetError as error:
            failed += 1
            console.print(escape(f"worker {capture['worker']} (pid {capture['pid']}): {error}"), soft_wrap=True)
    for worker, refusal in group["not_taken"].items():
        failed += 1
        said = "; ".join(filter(None, [refusal["message"], refusal.get("remedy")]))
        console.print(escape(f"worker {worker} was not captured: {said}"), soft_wrap=True)
    return 3 if failed or not group["captures"] else 0


def _finished(client: httpx2.Client, capture: dict[str, Any], folder: Path) -> None:
    """Download a successful capture and print its files' paths. Raises TargetError for any other."""
    if capture["state"] != "done":
        error = capture.get("error") or {"message": f"the capture was {capture['state']}"}
        raise TargetError(f"capture {capture['id']}: {error['message']}", remedy=error.get("remedy", ""))
    for path in download(client, capture, folder):
        print(path)


def _worker_of(capture: dict[str, Any]) -> str:
    """The capture's worker in words, with the options for the others, if there are any."""
    words = f"worker {capture['worker']} (pid {capture['pid']})"
    others = [name for name in capture["workers"] if name != capture["worker"]]
    if not others:
        return words
    return f"{words}, one of {len(others) + 1}; --worker {others[0]} takes another, --all-workers each"


def _show(capture: dict[str, Any], console: Console) -> None:
    kind, result = KINDS[capture["kind"]], capture["result"]
    table = Table(title=f"{kind.name}: {kind.headline(result)}")
    for column in kind.columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in result["top"]:
        table.add_row(*(escape(column.show(row)) for column in kind.columns))
    console.print(escape(_worker_of(capture)), soft_wrap=True)
    console.print(table)
    for note in kind.notes(result):
        console.print(escape(note), soft_wrap=True)
    if result.get("coverage_percent") is not None:
        console.print(f"stack coverage: {result['coverage_percent']:.1f} % of bytes")
    for note in result["not_covered"]:
        console.print(f"not covered: {escape(note)}")
    sys.stderr.flush()
