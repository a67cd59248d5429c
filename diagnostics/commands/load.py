"""`diagnostics load URL`: many streaming clients, well-behaved and not, with a report of their streams.

Exit code 0 where every stream ended as its client intended, 1 where some failed, 3 where none was answered.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ..errors import DiagnosticsError, TargetError, UsageError
from ..proof.clients.address import Address, RequestMessage, read_body, read_headers
from ..proof.clients.fleet.launch import FleetResult, Progress, launch
from ..proof.clients.fleet.order import Order
from ..proof.clients.fleet.report import table, to_json, warnings
from ..proof.clients.mix import Behavior, Leaves, NeverReads, Resets, Slow
from ..proof.experiment.session import until_done

__all__ = ["add_request", "configure", "message_of", "positive", "run", "share", "whole"]

_BEHAVIORS: dict[type[Behavior], str] = {
    Slow: "read --slow-rate bytes a second",
    Leaves: "close after --after events",
    NeverReads: "read nothing for --hold seconds",
    Resets: "break the connection after --after events",
}
_MOST_PROCESSES = 64


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="http or https; of an event stream")
    parser.add_argument("-c", "--connections", type=whole(1), default=100, metavar="N", help="open together (100)")
    parser.add_argument("-n", "--streams", type=whole(1), metavar="N", help="in all (1000, or no end with --seconds)")
    parser.add_argument("--seconds", type=positive, metavar="S", help="at most so long")
    parser.add_argument(
        "--rate", type=positive, metavar="R", help="begin R streams a second, and count latency from when each was due"
    )
    parser.add_argument("-p", "--processes", type=whole(1, _MOST_PROCESSES), default=1, metavar="N", help="(1)")
    parser.add_argument("--disable-keepalive", action="store_true", help="open a connection for each stream")
    add_request(parser)
    shares = parser.add_argument_group("which share of the clients misbehaves")
    for behavior, what in _BEHAVIORS.items():
        shares.add_argument(f"--{behavior.option}", type=share, default=0.0, metavar="10%", help=what)
    shares.add_argument("--slow-rate", type=whole(1), default=16 * 1024, metavar="BYTES", help="a second (16384)")
    shares.add_argument("--after", type=whole(1), default=5, metavar="EVENTS", help="(5)")
    shares.add_argument("--hold", type=positive, default=5.0, metavar="S", help="(5)")
    parser.add_argument(
        "--patience", type=positive, default=30.0, metavar="S", help="a stream so long silent failed (30)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")


def add_request(parser: argparse.ArgumentParser, *, tls: bool = True) -> None:
    """Add the options of the request: shared by `load`, `probe` and `compare`."""
    parser.add_argument("--method", help="default: GET, or POST with --body")
    parser.add_argument(
        "--body", type=Path, metavar="FILE", help="sent with each request, as JSON unless --header says else"
    )
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="repeatable")
    if tls:
        parser.add_argument("--insecure", action="store_true", help="do not check the server's certificate")


def message_of(arguments: argparse.Namespace) -> RequestMessage:
    """The request that the options of `add_request` describe. Raises UsageError."""
    method = (arguments.method or ("POST" if arguments.body else "GET")).upper()
    if not method.isalpha() or not method.isascii():
        raise UsageError(f"--method {arguments.method!r} is no HTTP method", remedy="for example --method POST")
    return RequestMessage(method, read_body(arguments.body), read_headers(arguments.header))


def run(arguments: argparse.Namespace) -> int:
    order = _order(arguments)
    console = Console(stderr=True)
    result = _watched(order, arguments.processes, console)
    Console(width=None if Console().is_terminal else 100).print(table(result))
    for warning in warnings(result):
        console.print(warning, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(to_json(result), indent=1) + "\n", encoding="utf-8")
    failed = result.tally.outcomes["failed"]
    if failed and not result.tally.bytes:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in result.tally.errors.most_common())
        raise TargetError(f"{order.address} answered none of {result.tally.streams} streams ({reasons})")
    return 1 if failed else 0


def _order(arguments: argparse.Namespace) -> Order:
    behaviors: tuple[Behavior, ...] = (
        Slow.coarse(arguments.slow_rate),
        Leaves(after_events=arguments.after),
        NeverReads(after_seconds=arguments.hold),
        Resets(after_events=arguments.after),
    )
    shares = {each: getattr(arguments, each.option) for each in behaviors if getattr(arguments, each.option)}
    if sum(shares.values()) > 1 + 1e-9:
        raise UsageError(f"the shares add up to {sum(shares.values()):.0%}", remedy="keep their sum at 100% or below")
    if arguments.processes > arguments.connections:
        raise UsageError(
            f"{arguments.processes} processes for {arguments.connections} connections", remedy="lower -p or raise -c"
        )
    streams = arguments.streams
    if streams is None and arguments.seconds is None:
        streams = 1000
    return Order(
        address=Address.of(arguments.url),
        message=message_of(arguments),
        connections=arguments.connections,
        streams=streams,
        seconds=arguments.seconds,
        rate=arguments.rate,
        shares=shares,
        patience_seconds=arguments.patience,
        verify_tls=not arguments.insecure,
        keep_alive=not arguments.disable_keepalive,
    )


def _watched(order: Order, processes: int, console: Console) -> FleetResult:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=order.streams)

        def show(now: Progress) -> None:
            failed = f", {now.failed:,} failed" if now.failed else ""
            text = f"{now.ended:,} streams ended, {now.streams - now.ended:,} open, {now.events:,} events{failed}"
            bar.update(task, description=text, completed=now.ended)

        try:
            return until_done(launch(order, processes, show))
        except* DiagnosticsError as several:
            raise several.exceptions[0] from several


def share(text: str) -> float:
    """The value of an option that takes a share: `10%` or `0.1`."""
    number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0% and 100%")
    return number


def positive(text: str) -> float:
    """The value of an option that takes a number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return number


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type for options that take a whole number from `least` to `most`."""

    def checked(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not {least}{f' to {most}' if most else ' or more'}")
        return number

    return checked
