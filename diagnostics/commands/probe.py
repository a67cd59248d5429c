"""`diagnostics probe URL`: times one stream step by step, and finds whether a proxy on the way buffers its events.

Exit code 0 where no verdict is bad, 1 where one is, 3 where no answer comes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..analysis.units import format_value, printable
from ..proof.clients.address import Address
from ..proof.clients.fleet.report import milliseconds
from ..proof.clients.probe import Probe, probe
from ..proof.clients.verdicts import ProbeLevel, ProbeVerdict, judge, worst
from .load import add_request, message_of, positive, whole

__all__ = ["configure", "run"]

SCHEMA = "highwater.probe/1"
_COLORS = {ProbeLevel.GOOD: "green", ProbeLevel.HINT: "yellow", ProbeLevel.BAD: "red"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="http or https; of an event stream")
    parser.add_argument("--seconds", type=positive, default=15.0, metavar="S", help="watch at most so long (15)")
    parser.add_argument("--events", type=whole(1), default=100, metavar="N", help="watch at most so many (100)")
    add_request(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, each arrival too")


def run(arguments: argparse.Namespace) -> int:
    probed = probe(
        Address.of(arguments.url),
        message_of(arguments),
        seconds=arguments.seconds,
        events=arguments.events,
        verify_tls=not arguments.insecure,
    )
    verdicts = judge(probed)
    console = Console(width=None if Console().is_terminal else 100)
    console.print(_times(probed))
    console.print(_verdicts(verdicts))
    if arguments.json:
        document = {"schema": SCHEMA, **probed.to_json(), "verdicts": [asdict(verdict) for verdict in verdicts]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if worst(verdicts) is ProbeLevel.BAD else 0


def _times(probed: Probe) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, title=escape(printable(str(probed.address))), title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row("name", milliseconds(probed.name_seconds), probed.address.host)
    table.add_row("connect", milliseconds(probed.connect_seconds), probed.peer or "")
    if probed.tls_seconds is not None:
        table.add_row("tls", milliseconds(probed.tls_seconds), probed.tls_version or "")
    table.add_row("first byte", milliseconds(probed.first_byte_seconds), "since the request")
    table.add_row("first event", milliseconds(probed.first_event_seconds), "since the request")
    gaps = probed.gaps()
    for label, share in (("gap p50", 0.5), ("gap p90", 0.9), ("gap p99", 0.99), ("gap max", 1.0)):
        table.add_row(label, milliseconds(gaps.quantile(share)), "between events" if share == 0.5 else "")
    size = format_value(sum(arrival.bytes for arrival in probed.arrivals), "bytes")
    ended = {"enough": "that is enough", "time_up": "the time was up"}.get(probed.ended, probed.ended.replace("_", " "))
    table.add_row("events", f"{probed.events:,}", f"{size} in {probed.seconds:.2f} s; {ended}")
    return table


def _verdicts(verdicts: list[ProbeVerdict]) -> Table:
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for verdict in verdicts:
        remedy = f"\n-> {escape(verdict.remedy)}" if verdict.remedy else ""
        color = _COLORS[verdict.level]
        table.add_row(f"[{color}]{verdict.level}[/]", verdict.subject, escape(printable(verdict.finding)) + remedy)
    return table
