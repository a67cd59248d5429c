"""Checks for memory that diagnostics or telemetry hold: the tables of a tracer, an exporter's queue.

A check looks at the readings for one cause and says what it found, or None. It accuses only with a number that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..units import format_value
from .finding import Finding
from .readings import Evidence, Readings

__all__ = ["telemetry", "tracer"]

_TELEMETRY = ("opentelemetry", "prometheus_client")


def tracer(readings: Readings) -> Finding | None:
    size = readings.part("tracers")
    if size is not None and size >= readings.least_held:
        return Finding(
            "tracer_growth",
            "high",
            f"The tables of a tracer hold {format_value(size, 'bytes')}.",
            (Evidence("part tracers", size, "bytes"), *readings.rss_evidence()),
        )
    return None


def telemetry(readings: Readings) -> Finding | None:
    """A capture in which lines of a telemetry library hold most of what grew."""
    for kind in ("tracemalloc", "memray", "objects"):
        rows = (readings.captures.get(kind) or {}).get("top") or ()
        sizes = [(row, row.get("bytes_delta") or row.get("bytes") or 0) for row in rows]
        total = sum(size for _, size in sizes if size > 0)
        theirs = sum(size for row, size in sizes if size > 0 and _is_telemetry(row))
        if theirs >= readings.least_growth and 2 * theirs >= total:
            evidence = Evidence(f"held by lines of telemetry in the last {kind} capture", theirs, "bytes")
            return Finding(
                "tracer_growth",
                "high",
                f"Telemetry holds {format_value(theirs, 'bytes')} of the {format_value(total, 'bytes')} captured.",
                (evidence, Evidence("all that this capture shows", total, "bytes")),
            )
    return None


def _is_telemetry(row: Mapping[str, Any]) -> bool:
    words = f"{row.get('file') or ''} {row.get('type') or ''}"
    return any(name in words for name in _TELEMETRY)
