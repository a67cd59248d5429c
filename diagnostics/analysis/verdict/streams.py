"""Checks of open streams: what is buffered for them, and what goes on after their clients have left.

Buffered in the application is what its own counters say, what a `retained` capture finds that streams keep alive, and what
grows and, by an `objects` capture, nothing but open streams keeps alive: it is freed as they end, and no leak beyond them.

A check accuses only with a number that it names. What a ledger counts or a capture has shown makes a finding certain
("high"); a trend of the right shape makes it likely ("medium"); where two causes look alike from outside, it says so ("low").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ..units import format_value
from .culprit.beyond import growth
from .culprit.container import container_on
from .culprit.holder import place_of
from .finding import Finding
from .readings import LITTLE, MIB, MOST, Evidence, Readings, Rise
from .startup import reserved

__all__ = ["buffering", "upstreams", "with_doubt"]

# A stream that holds less than this is being served, not buffered: an event, a socket's queue.
_BUFFERED_A_STREAM = 128 * 1024
# The kernel's queues are outside of RSS and bounded by the sockets: only a crowd of them counts.
_KERNEL_HELD, _KERNEL_SHARE = 32 * MIB, 0.1
# A client that left is noticed, and its upstream closed, within a moment.
_CLOSE_SECONDS = 5.0
_LEAST_CONNECTIONS = 10
# Verdicts on growth that what streams buffer looks like where nobody counts it.
_LIKE_BUFFERS: Final = frozenset({"retained_objects", "native_growth", "memory_growth"})


def buffering(readings: Readings) -> Finding | None:
    return _buffered_layers(readings) or _growing(readings) or _retained_by_streams(readings) or _unread(readings)


def _buffered_layers(readings: Readings) -> Finding | None:
    known = {layer: held for layer, held in readings.layers.items() if held is not None}
    resident = sum(held for layer, held in known.items() if layer != "kernel")
    kernel = known.get("kernel", 0)
    many = max(1, readings.open_streams or 0)
    in_process = resident >= max(readings.least_held, many * _BUFFERED_A_STREAM)
    crowd = kernel >= max(_KERNEL_HELD, _KERNEL_SHARE * (readings.rss or 0), many * _BUFFERED_A_STREAM)
    if not in_process and not crowd:
        return None
    layer = max((name for name in known if in_process == (name != "kernel")), key=lambda name: known[name])
    rows = _largest(readings)
    evidence = tuple(Evidence(f"{name} layer of all open streams", held, "bytes") for name, held in known.items())
    if readings.open_streams is not None:
        evidence += (Evidence("open streams", readings.open_streams, "count"),)
    evidence += tuple(Evidence(f"held for {_name(row)}", row["held_bytes"], "bytes") for row in rows)
    blocked = sum(row.get("state") == "blocked" for row in readings.streams)
    waiting = f"; {blocked} of the largest wait for their clients" if blocked else ""
    amount = format_value(known[layer], "bytes")
    says = f"Open streams hold {amount} in the {layer} layer{waiting}."
    return Finding("buffering", "high", says, (*evidence, *readings.rss_evidence()), _ids(rows), layer)


def _growing(readings: Readings) -> Finding | None:
    """Most of what grows is kept alive by open streams alone, as an objects capture has seen."""
    grown = growth(readings)
    if grown is None or not grown.is_of_streams:
        return None
    held = grown.of_streams
    # Where most samples are of streams of their own, there are more streams than were seen.
    many = len(held.ids) if 2 * len(held.ids) <= held.samples else max(readings.open_streams or 0, len(held.ids))
    amount, each = (format_value(round(size), "bytes") for size in (held.bytes, held.bytes / max(1, many)))
    streams = "1 open stream" if many == 1 else f"{many} open streams, on average {each} each"
    says = (
        f"Memory grows by {grown.text}, and open streams hold it: {amount} of what grew at the last capture can be reached "
        f"through nothing else than {streams}"
    )
    evidence = [
        *grown.evidence(),
        Evidence("of what grew at the last capture, kept alive by open streams alone", held.bytes, "bytes"),
        Evidence("such streams", many, "count"),
    ]
    holder = held.holder
    if holder is not None:
        says += f", in {holder.name}"
        if held.function is not None and held.function not in holder.name:
            says += f" of {held.function}"
    says += ". It is freed as they end."
    full = _full(readings)
    if full:
        evidence.append(Evidence("streams with full queues", len(full), "count"))
        says += f" The clients of {len(full)} streams do not read."
    finding = Finding("buffering", "high", says, tuple(evidence), held.ids[:3], "app")
    if grown.slowed:
        says += " Since then memory grows at less than half of that pace: what grows now may be something else."
        return replace(finding, confidence="low", says=says, outdated=True)
    if holder is not None:
        finding = replace(finding, culprit=holder.name, path=holder.path)
    return reserved(readings, finding, "buffers that fill to their bound")


def _retained_by_streams(readings: Readings) -> Finding | None:
    """A service without a ledger: a capture of kind retained has seen what the streams keep alive."""
    captured = readings.captures.get("retained") or {}
    retained, streams = captured.get("total_bytes") or 0, captured.get("streams") or ()
    if retained < max(readings.least_held, len(streams) * _BUFFERED_A_STREAM):
        return None
    largest = sorted(streams, key=lambda row: -row["retained_bytes"])[:3]
    evidence = (
        Evidence("kept alive by open streams in the last retained capture", retained, "bytes"),
        *(Evidence(f"kept alive by {_name(row)}", row["retained_bytes"], "bytes") for row in largest),
        *readings.rss_evidence(),
    )
    says = f"Open streams kept {format_value(retained, 'bytes')} of objects alive at the last capture"
    path, held = _container(streams)
    if path is None or held < MOST * retained:
        return Finding("buffering", "high", f"{says}.", evidence, _ids(largest), "app", captured=True)
    name = container_on(path)
    says += f", {format_value(held, 'bytes')} of it in {name}: {path}."
    return Finding("buffering", "high", says, evidence, _ids(largest), "app", name, path, captured=True)


def _container(streams: Sequence[Mapping[str, Any]]) -> tuple[str | None, int]:
    """The container that has most bytes of all streams, as the way to it in the largest of them; with these bytes."""
    held: dict[tuple[str, ...], int] = {}
    example: dict[tuple[str, ...], str] = {}
    for row in sorted(streams, key=lambda row: -row["retained_bytes"]):
        for container in row.get("containers") or ():
            place = place_of(container["path"])
            held[place] = held.get(place, 0) + container["bytes"]
            example.setdefault(place, container["path"])
    if not held:
        return None, 0
    most = max(held, key=lambda place: held[place])
    return example[most], held[most]


def _unread(readings: Readings) -> Finding | None:
    """Without a ledger, while memory grows: clients whose queues in the server and the kernel are full do not read."""
    rise = readings.heavy_rise("in_use_bytes")
    stuck = _uncounted(readings, rise) if rise is not None else []
    if rise is None or not stuck:
        return None
    says = (
        f"In-use memory grows while {len(stuck)} of the largest streams have clients that do not read;"
        " what the application buffers for them is not counted here."
    )
    evidence = (*rise.evidence("in use"), Evidence("streams with full queues", len(stuck), "count"))
    return Finding("buffering", "low", says, evidence, _ids(stuck[:3]), "app")


def _uncounted(readings: Readings, rise: Rise) -> list[Mapping[str, Any]]:
    """The streams whose clients do not read and for which the application may buffer what grows, as far as is known."""
    if readings.layers.get("app") is not None or _hold_little(readings, rise):
        return []
    return _full(readings)


def _full(readings: Readings) -> list[Mapping[str, Any]]:
    """Of the largest streams those whose queues in the server and the kernel are full: their clients do not read."""
    return [
        row
        for row in readings.streams
        if (row.get("transport_bytes") or 0) + (row.get("kernel_bytes") or 0) >= _BUFFERED_A_STREAM / 2
    ]


def _hold_little(readings: Readings, rise: Rise) -> bool:
    """Whether a retained capture has shown that streams keep alive little of what had grown until then."""
    captured = readings.captures.get("retained") or {}
    retained = captured.get("total_bytes")
    if retained is None:
        return False
    begun, taken = rise.trend.since, captured.get("time")
    part = 1.0
    if begun is not None and taken is not None and rise.trend.seconds > 0:
        part = min(1.0, max(0.0, (taken - begun) / rise.trend.seconds))
    return bool(retained < LITTLE * part * rise.amount)


def with_doubt(readings: Readings, finding: Finding) -> Finding:
    """The finding, told with low confidence where it names nobody and what grows may be what streams buffer."""
    rise = readings.heavy_rise("in_use_bytes")
    if (
        finding.word not in _LIKE_BUFFERS
        or finding.confidence != "medium"
        or finding.culprit is not None
        or rise is None
    ):
        return finding
    stuck = _uncounted(readings, rise)
    if not stuck or (finding.word == "native_growth" and "objects" in readings.captures):
        return finding
    says = (
        f"{finding.says} But the clients of {len(stuck)} streams do not read, and what the application buffers for them is not "
        "counted here: it may be that."
    )
    return replace(finding, confidence="low", says=says)


def upstreams(readings: Readings) -> Finding | None:
    abandoned = [row for row in readings.streams if (row.get("disconnected_seconds") or 0) >= _CLOSE_SECONDS]
    if abandoned:
        longest = max(row["disconnected_seconds"] for row in abandoned)
        count = Evidence("streams whose client has left", len(abandoned), "count")
        says = f"{len(abandoned)} streams go on although their clients left, the first of them {longest:.0f} s ago."
        evidence: tuple[Evidence, ...] = (count, Evidence("the longest for", longest, "seconds"))
        return Finding("unclosed_upstreams", "high", says, evidence, _ids(abandoned[:3]))
    rise = readings.rise("outgoing_connections")
    if rise is None or rise.amount < _LEAST_CONNECTIONS:
        return None
    seconds = rise.trend.seconds
    # Of a gateway for WebSockets each client has a connection to another, and no stream.
    if readings.follows_streams(rise.amount, seconds) or 2 * (readings.more_served(seconds) or 0.0) >= rise.amount:
        return None
    evidence = (
        Evidence(f"connections to others, more within {seconds:.0f} s", rise.amount, "count"),
        Evidence("connections to others now", rise.trend.last or 0, "count"),
        *readings.streams_evidence(seconds),
    )
    says = f"Connections to others grow by {rise.amount:.0f}"
    if readings.gained("open_streams", seconds) is None:
        return Finding("unclosed_upstreams", "low", f"{says}; how many streams are open is not known.", evidence)
    return Finding("unclosed_upstreams", "medium", f"{says} while open streams do not.", evidence)


def _largest(readings: Readings) -> list[Mapping[str, Any]]:
    return [row for row in readings.streams if row.get("held_bytes")][:3]


def _ids(rows: list[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(row["id"]) for row in rows if row.get("id") is not None)


def _name(row: Mapping[str, Any]) -> str:
    return f"stream {row.get('id', '?')} of {row.get('route', 'an unknown route')}"
