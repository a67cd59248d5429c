"""What a fleet measured, as a table, as JSON, and in the warnings without which the table would mislead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from ....analysis.distribution import Distribution
from .launch import FleetResult

__all__ = ["SCHEMA", "milliseconds", "table", "to_json", "warnings"]

SCHEMA = "highwater.load/1"
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def table(result: FleetResult) -> Table:
    """One row for each figure."""
    tally = result.tally
    rows = Table(box=box.SIMPLE, show_header=False, title=f"{result.order.address}", title_justify="left")
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column()
    rows.add_row("streams", f"{tally.streams:,} in {result.seconds:.2f} s: {_listed(tally.outcomes)}")
    rows.add_row("errors", _listed(tally.errors) or "none")
    rows.add_row(
        "throughput",
        f"{result.events_per_second:,.0f} events/s, {result.bytes_per_second / 2**20:,.1f} MiB/s"
        f" ({tally.events:,} events, {tally.bytes / 2**20:,.1f} MiB)",
    )
    since = "since it was due" if result.order.rate is not None else "since it began"
    rows.add_row("connections", f"{tally.connections:,} opened")
    rows.add_row("connected", f"{_spread(tally.connect)}  {since}")
    rows.add_row("first event", f"{_spread(tally.first_event)}  {since}")
    rows.add_row("gaps", f"{_spread(tally.gaps)}  between events")
    rows.add_row(
        "content",
        f"{_listed(tally.content_types) or 'no content type'}; [DONE] ended {tally.done_seen:,} of"
        f" {tally.outcomes['completed']:,} completed streams; {tally.sampled - tally.not_json:,} of {tally.sampled:,}"
        " sampled events are JSON",
    )
    rows.add_row("this client", ", ".join(f"{share.cpu:.0%} of a core" for share in result.shares))
    return rows


def warnings(result: FleetResult) -> list[str]:
    """What a reader of the table must know."""
    remarks = []
    if result.client_limited:
        worst = max(result.shares, key=lambda share: share.cpu + share.waited)
        remarks.append(
            f"the client itself was the limit: one of its processes used {worst.cpu:.0%} of a core and waited for one during"
            f" {worst.waited:.0%} of the time; the service may be faster than this (raise -p, or use another machine)"
        )
    if result.tally.asked_late:
        remarks.append(
            f"{result.tally.asked_late:,} streams began late because all {result.order.connections} connections were busy;"
            " their waiting is in the latencies"
        )
    if result.tally.content_types and "text/event-stream" not in result.tally.content_types:
        remarks.append(f"nothing was sent as text/event-stream, but as {_listed(result.tally.content_types)}")
    return remarks


def to_json(result: FleetResult) -> dict[str, Any]:
    """All numbers; seconds, bytes. Headers and body of the request are left out: there may be a key in them."""
    order = result.order
    return {
        "schema": SCHEMA,
        "url": str(order.address),
        "order": {
            "method": order.message.method,
            "connections": order.connections,
            "streams": order.streams,
            "seconds": order.seconds,
            "rate": order.rate,
            "keep_alive": order.keep_alive,
            "shares": {behavior.option: share for behavior, share in order.shares.items()},
        },
        "seconds": result.seconds,
        "events_per_second": result.events_per_second,
        "bytes_per_second": result.bytes_per_second,
        "client": {
            "limited": result.client_limited,
            "processes": [{"cpu": share.cpu, "waited": share.waited} for share in result.shares],
        },
        "latency": {
            name: {
                **{label: spread.quantile(share) for label, share in _QUANTILES.items()},
                "max": spread.quantile(1.0),
            }
            for name, spread in (
                ("connect", result.tally.connect),
                ("first_event", result.tally.first_event),
                ("gaps", result.tally.gaps),
            )
        },
        "tally": result.tally.to_json(),
    }


def _spread(spread: Distribution) -> str:
    if not spread.count:
        return "none"
    shown = [f"{label} {milliseconds(spread.quantile(share))}" for label, share in _QUANTILES.items()]
    return ", ".join([*shown, f"max {milliseconds(spread.largest)}"])


def milliseconds(seconds: float | None) -> str:
    """Seconds as people read latencies."""
    if seconds is None:
        return "-"
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.{0 if seconds >= 0.1 else 1 if seconds >= 0.001 else 2}f} ms" if seconds else "0 ms"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count)
