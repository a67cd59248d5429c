"""The checks behind a verdict: each looks at the readings for one cause and says what it found, or None.

A check accuses only with a number that it names. What a capture has shown makes a finding certain ("high"); a trend of the
right shape makes it likely ("medium"); where two causes look alike from outside, the finding says so ("low").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .beside import children, copied_pages, recycling
from .finding import Confidence, Finding
from .readings import MIB, Evidence, Readings
from .units import format_value

__all__ = ["CHECKS", "Confidence", "Finding"]

# A stream that holds less than this is being served, not buffered: an event, a socket's queue.
_BUFFERED_A_STREAM = 128 * 1024
# The kernel's queues are outside of RSS and bounded by the sockets: only a crowd of them counts.
_KERNEL_HELD, _KERNEL_SHARE = 32 * MIB, 0.1
# A free part below both is an allocator's working stock.
_FREE_HELD, _FREE_SHARE = 32 * MIB, 0.25
# A client that left is noticed, and its upstream closed, within a moment.
_CLOSE_SECONDS = 5.0
_MANY = 20
# One Python object of this size or more is rare: growth by fewer and larger blocks than that looks like native memory.
_LARGE_BLOCK = MIB
# What is buffered is counted without its objects' own headers, the allocators' rounding and its place in a queue.
_OVERHEAD = 1.5
_TELEMETRY = ("opentelemetry", "prometheus_client")


def tracer(readings: Readings) -> Finding | None:
    held = readings.part("tracers")
    if held is not None and held >= readings.least_held:
        return Finding(
            "tracer_growth",
            "high",
            f"The tables of a tracer hold {format_value(held, 'bytes')}.",
            (Evidence("part tracers", held, "bytes"), *_rss(readings)),
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
            seen = Evidence(f"held by lines of telemetry in the last {kind} capture", theirs, "bytes")
            return Finding(
                "tracer_growth",
                "high",
                f"Telemetry holds {format_value(theirs, 'bytes')} of the {format_value(total, 'bytes')} captured.",
                (seen, Evidence("all that this capture shows", total, "bytes")),
            )
    return None


def buffering(readings: Readings) -> Finding | None:
    return _buffered_layers(readings) or _retained_by_streams(readings) or _unread(readings)


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
    held = format_value(known[layer], "bytes")
    says = f"Open streams hold {held} in the {layer} layer{waiting}."
    return Finding("buffering", "high", says, (*evidence, *_rss(readings)), _ids(rows), layer)


def _retained_by_streams(readings: Readings) -> Finding | None:
    """A service without a ledger: a capture of kind retained has seen what the streams keep alive."""
    captured = readings.captures.get("retained") or {}
    held, streams = captured.get("total_bytes") or 0, captured.get("streams") or ()
    if held < max(readings.least_held, len(streams) * _BUFFERED_A_STREAM):
        return None
    largest = sorted(streams, key=lambda row: -row["retained_bytes"])[:3]
    evidence = (
        Evidence("kept alive by open streams in the last retained capture", held, "bytes"),
        *(Evidence(f"kept alive by {_name(row)}", row["retained_bytes"], "bytes") for row in largest),
        *_rss(readings),
    )
    says = f"Open streams kept {format_value(held, 'bytes')} of objects alive at the last capture."
    return Finding("buffering", "high", says, evidence, _ids(largest), "app")


def _unread(readings: Readings) -> Finding | None:
    """Without a ledger, while memory grows: clients whose queues in the server and the kernel are full do not read."""
    rise = readings.heavy_rise("in_use_bytes")
    if rise is None or readings.layers.get("app") is not None:
        return None
    stuck = [
        row
        for row in readings.streams
        if (row.get("transport_bytes") or 0) + (row.get("kernel_bytes") or 0) >= _BUFFERED_A_STREAM / 2
    ]
    if not stuck:
        return None
    says = (
        f"In-use memory grows while {len(stuck)} of the largest streams have clients that do not read;"
        " what the application buffers for them is not counted here."
    )
    evidence = (*rise.evidence("in use"), Evidence("streams with full queues", len(stuck), "count"))
    return Finding("buffering", "low", says, evidence, _ids(stuck[:3]), "app")


def upstreams(readings: Readings) -> Finding | None:
    left = [row for row in readings.streams if (row.get("disconnected_seconds") or 0) >= _CLOSE_SECONDS]
    if left:
        longest = max(row["disconnected_seconds"] for row in left)
        gone = Evidence("streams whose client has left", len(left), "count")
        says = f"{len(left)} streams go on although their clients left, the first of them {longest:.0f} s ago."
        evidence: tuple[Evidence, ...] = (gone, Evidence("the longest for", longest, "seconds"))
        return Finding("unclosed_upstreams", "high", says, evidence, _ids(left[:3]))
    rise = readings.rise("outgoing_connections")
    if rise is None or rise.amount < _MANY / 2 or readings.follows_streams(rise.amount, rise.trend.seconds):
        return None
    evidence = (
        Evidence(f"connections to others, more within {rise.trend.seconds:.0f} s", rise.amount, "count"),
        Evidence("connections to others now", rise.trend.last or 0, "count"),
        *readings.streams_evidence(rise.trend.seconds),
    )
    says = f"Connections to others grow by {rise.amount:.0f}"
    if readings.gained("open_streams", rise.trend.seconds) is None:
        return Finding("unclosed_upstreams", "low", f"{says}; how many streams are open is not known.", evidence)
    return Finding("unclosed_upstreams", "medium", f"{says} while open streams do not.", evidence)


def tasks(readings: Readings) -> Finding | None:
    rise = readings.rise("tasks")
    if rise is None or rise.amount < _MANY or readings.follows_streams(rise.amount, rise.trend.seconds):
        return None
    evidence = [
        Evidence(f"unfinished tasks, more within {rise.trend.seconds:.0f} s", rise.amount, "count"),
        Evidence("unfinished tasks now", rise.trend.last or 0, "count"),
        *readings.streams_evidence(rise.trend.seconds),
    ]
    says = f"Unfinished tasks grow by {rise.amount:.0f} while open streams do not."
    rows = (readings.captures.get("tasks") or {}).get("top") or ()
    orphans = [row for row in rows if row.get("orphan") and row.get("task") != "RequestResponseCycle.run_asgi"]
    largest = max(orphans, key=lambda row: row["count"], default=None)
    if largest is None or largest["count"] < _MANY:
        return Finding("orphan_tasks", "medium", says, tuple(evidence))
    runs = largest.get("task") or largest.get("function")
    evidence.append(Evidence(f"tasks in {runs} that nothing awaits, at the last capture", largest["count"], "count"))
    says += f" {largest['count']} of them run {runs}, and nothing awaits them."
    return Finding("orphan_tasks", "high", says, tuple(evidence))


def growth(readings: Readings) -> Finding | None:
    """In-use memory that grows more than the streams explain: Python's objects, or somebody else's."""
    rise = readings.heavy_rise("in_use_bytes")
    if rise is None:
        return _mapped(readings)
    seconds = rise.trend.seconds
    buffered = sum(readings.gained(f"buffered_{layer}_bytes", seconds) or 0.0 for layer in ("app", "transport"))
    amount = rise.amount - _OVERHEAD * max(0.0, buffered)
    if amount < readings.least_growth or readings.explained_by_load(amount, seconds):
        return None
    small = readings.gained("python_live_bytes", seconds) or 0.0
    blocks = readings.gained("python_large_blocks", seconds)
    evidence = [*rise.evidence("in use"), Evidence("of it in small Python objects", small, "bytes")]
    finished = readings.gained("streams_finished_total", seconds)
    if finished:
        evidence.append(Evidence("for each finished stream", amount / finished, "bytes"))
    if blocks is not None:
        evidence.append(Evidence("more large blocks of Python's", blocks, "count"))
    in_python = small >= amount / 4 or (blocks is not None and blocks * _LARGE_BLOCK > amount)
    census = readings.captures.get("objects") or {}
    grown = [row for row in census.get("top") or () if (row.get("bytes_delta") or 0) > 0]
    if in_python or sum(row["bytes_delta"] for row in grown) >= readings.least_growth:
        return _retained(evidence, grown, census, amount)
    if blocks is None and small < amount / 4:
        return Finding(
            "native_growth",
            "low",
            _says_native(amount, "Python's large blocks are not counted here"),
            (*evidence,),
        )
    confidence: Confidence = "high" if census.get("bytes_delta") is not None else "medium"
    return Finding(
        "native_growth", confidence, _says_native(amount, "Python's own blocks do not explain it"), (*evidence,)
    )


def _retained(
    evidence: list[Evidence], grown: list[dict[str, Any]], census: Mapping[str, Any], amount: float
) -> Finding:
    says = f"Objects of Python's grow by {format_value(round(amount), 'bytes')} beyond what open streams explain."
    if not grown:
        return Finding("retained_objects", "medium", says, tuple(evidence))
    first = grown[0]
    name = first.get("type") or first.get("function")
    evidence.append(Evidence(f"more in objects of type {name}, at the last capture", first["bytes_delta"], "bytes"))
    ways = (census.get("paths") or {}).get(name) or ()
    kept = f", kept alive by {ways[0]['path']}" if ways else ""
    return Finding("retained_objects", "high", f"{says} At the last capture most was {name}{kept}.", tuple(evidence))


def _says_native(amount: float, why: str) -> str:
    return f"In-use memory grows by {format_value(round(amount), 'bytes')}; {why}."


def _mapped(readings: Readings) -> Finding | None:
    """RSS grows and neither allocator has handed out more: memory that was mapped behind their backs."""
    rise = readings.heavy_rise("rss_bytes")
    inside = readings.trend("in_use_bytes")
    held = readings.part("other")
    if rise is None or inside is None or inside.state == "unknown" or held is None or held < rise.amount:
        return None
    evidence = (*rise.evidence("RSS"), Evidence("part other", held, "bytes"))
    says = f"RSS grows by {format_value(round(rise.amount), 'bytes')} in mappings of neither allocator."
    return Finding("native_growth", "medium", says, evidence)


def allocator(readings: Readings) -> Finding | None:
    free = readings.part("python_free", "malloc_free")
    if free is None or free < max(_FREE_HELD, _FREE_SHARE * (readings.rss or 0)):
        return None
    evidence = tuple(
        Evidence(f"part {name}", readings.part(name) or 0, "bytes") for name in ("python_free", "malloc_free")
    )
    says = f"{format_value(free, 'bytes')} of resident memory are free, and kept by the allocators."
    return Finding("allocator_free", "high", says, (*evidence, *_rss(readings)))


def load(readings: Readings) -> Finding | None:
    """Memory that follows the streams, or that does not grow at all: certain only where all that could grow was seen."""
    in_use = readings.trend("in_use_bytes")
    if in_use is None or in_use.state == "unknown":
        return None
    rise = readings.heavy_rise("in_use_bytes")
    if rise is None and (readings.heavy_rise("rss_bytes") or readings.heavy_rise("private_bytes")):
        return None  # it grows, and not by what is in use
    unseen = _unseen(readings)
    if rise is not None:
        evidence = (*rise.evidence("in use"), *readings.streams_evidence(rise.trend.seconds))
        follows = readings.explained_by_load(rise.amount, rise.trend.seconds)
        says = "the number of open streams" if follows else "what open streams buffer"
        return Finding("load_only", "medium", f"Memory grows with {says}.{unseen}", evidence)
    if in_use.growing:
        says = "In-use memory grows by less than matters."
    else:
        says = f"In-use memory does not grow over {in_use.seconds:.0f} s."
    evidence = (
        Evidence(f"in use, slope over {in_use.seconds:.0f} s", in_use.slope or 0.0, "bytes a second"),
        *readings.streams_evidence(in_use.seconds),
        *_rss(readings),
    )
    return Finding("load_only", "medium" if unseen else "high", says + unseen, evidence)


# What must have been read before a worker is called sound: (series, what it is).
_NEEDED: Final = (
    ("tasks", "how many tasks there are"),
    ("private_bytes", "what of its memory is private"),
    ("children_rss_bytes", "what its children take"),
)


def _unseen(readings: Readings) -> str:
    """What could hold growth and was not read, as a sentence with a space before it; empty where everything was."""
    missing = [
        f"{what} ({readings.unread[name]})" if name in readings.unread else what
        for name, what in _NEEDED
        if name not in readings.unknown and ((found := readings.trend(name)) is None or found.state == "unknown")
    ]
    return f" Not known: {', '.join(missing)}." if missing else ""


# In the order in which causes hide others: a tracer's tables look like a leak, buffers like retained objects.
CHECKS: Final[tuple[Callable[[Readings], Finding | None], ...]] = (
    tracer,
    telemetry,
    buffering,
    upstreams,
    tasks,
    growth,
    copied_pages,
    children,
    recycling,
    allocator,
    load,
)


def _rss(readings: Readings) -> tuple[Evidence, ...]:
    return () if readings.rss is None else (Evidence("RSS", readings.rss, "bytes"),)


def _largest(readings: Readings) -> list[Mapping[str, Any]]:
    return [row for row in readings.streams if row.get("held_bytes")][:3]


def _ids(rows: list[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(row["id"]) for row in rows if row.get("id") is not None)


def _name(row: Mapping[str, Any]) -> str:
    return f"stream {row.get('id', '?')} of {row.get('route', 'an unknown route')}"


def _is_telemetry(row: Mapping[str, Any]) -> bool:
    words = f"{row.get('file') or ''} {row.get('type') or ''}"
    return any(name in words for name in _TELEMETRY)
