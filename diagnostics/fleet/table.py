"""The fleet as a table of words, the same in a terminal and on a page. Pure."""

from __future__ import annotations

from typing import Final

from ..analysis.units import format_value
from .replicas import HourlyGrowth, Replica

__all__ = ["COLUMNS", "cells_of", "details_of"]

# The heading of each column, and whether it is a number.
COLUMNS: Final = (
    ("replica", False), ("verdict", False), ("RSS", True), ("growth an hour", False), ("streams", True), ("workers", True),
    ("of limit", True), ("version", False), ("", False),
)  # fmt: skip


def cells_of(replica: Replica, reason: str | None) -> tuple[str, ...]:
    """One cell for each column. `reason`: why it is not as the others, None where it is."""
    if replica.error:
        return (replica.name, "no answer", *[""] * (len(COLUMNS) - 2))
    silent = f" ({replica.silent} silent)" if replica.silent else ""
    return (
        replica.name,
        f"{replica.verdict} ({replica.confidence})",
        "unknown" if replica.rss_bytes is None else format_value(replica.rss_bytes, "bytes"),
        _growth(replica.growth),
        "unknown" if replica.streams is None else str(replica.streams),
        f"{replica.workers}{silent}",
        "" if replica.limit_share is None else f"{100 * replica.limit_share:.0f} %",
        replica.version or "unknown",
        "odd" if reason is not None else "",
    )


def details_of(replica: Replica, reason: str | None) -> list[str]:
    """What is to be said of a replica beyond its row."""
    said = [f"{replica.name}: {replica.error}"] if replica.error else []
    if reason is not None:
        said.append(f"{replica.name} is not as the others: {reason}")
    if replica.alarm:
        said.append(f"{replica.name}: {replica.says}\n  next: diagnostics status {replica.url}")
    said += [f"{replica.name}: a former life: {end}" for end in replica.ends[:1]]
    return said


def _growth(growth: HourlyGrowth | None) -> str:
    """The estimate, +- half the width of its interval."""
    if growth is None:
        return "too early"
    mid = format_value(round(growth.mid), "bytes", signed=True)
    return f"{mid} +- {format_value(round((growth.high - growth.low) / 2), 'bytes')}"
