"""Reads the table of a sampled live heap, `<root>/heap/*.heap`, as a Profile. Written by diagnostics/agent/native/live/table.c.

The law of this file: any bytes give a table or a UsageError that names the defect. The table may have been copied while its
process was writing to it, or after that was killed in the middle: entries that were being written are left out and counted.

All numbers are little-endian. The header (`_HEADER`) has the offsets of the five parts and the number of used entries of each:
    blocks   live ones: site + 1 (0: free), bytes, time of allocation in tenths of a second since the start
    sites    a stack, and the sums allocated there since the start, freed or not
    nodes    a stack is a path in a tree: parent (all ones: none) and frame; a parent comes before its children. What was
             allocated for a stream has, outermost but for a mark that it was cut, a frame whose name is the stream's route
    frames   offsets of the function's and the file's name, and the line
    names    two bytes of length, then UTF-8

Blocks and sites begin and end with a counter that is increased with each change, the last one first: an entry that was read
from front to back is consistent where both are equal.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import UsageError
from .profile import Frame, Profile, Sample, ValueType
from .units import format_moment, format_value

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MAX_BYTES",
    "HeapTable",
    "Site",
    "decode",
    "in_use",
    "process_of",
    "profile",
    "since",
    "weight_of",
]

MAGIC = b"HWHEAP\r\n"
VERSION = 1
# A table has 3 MiB.
MAX_BYTES = 64 * 1024 * 1024

_HEADER = struct.Struct("<8sIIQIIQqQ10IQQQQdIIIIII")
HEADER_BYTES = _HEADER.size
_BLOCK, _SITE = struct.Struct("<IIQII"), struct.Struct("<IIQQddddII")
_NODE, _FRAME = struct.Struct("<II"), struct.Struct("<III")
_NONE = 0xFFFFFFFF
_LOST = 1
_MODES = {1: "on", 2: "raw"}
_MAX_DEPTH = 256
# The file of a frame that is none and names a route: table.c.
_ROUTE_FILE = "<route>"

_AGES = (
    (60.0, "under 1 min"),
    (600.0, "1 to 10 min"),
    (3600.0, "10 min to 1 h"),
    (6 * 3600.0, "1 to 6 h"),
    (86400.0, "6 to 24 h"),
)
_OLDEST = "over 1 day"

_TYPES = (
    ValueType("inuse_space", "bytes"),
    ValueType("inuse_objects", "count"),
    ValueType("alloc_space", "bytes"),
    ValueType("alloc_objects", "count"),
)


@dataclass(frozen=True, slots=True)
class Site:
    """A stack (leaf first) and the estimated sums allocated there since the start; `route`: of the streams that it was for."""

    stack: tuple[Frame, ...]
    allocated_bytes: float
    allocated_objects: float
    route: str | None = None


@dataclass(frozen=True)
class HeapTable:
    """The content of a file.

    pid, start_ticks     of the process: in its own PID namespace; its start in clock ticks since boot (0: unknown)
    mode                 on, or raw: only blocks that are not pymalloc's
    rate                 mean of bytes from one sample to the next
    started, updated     wall-clock time: when sampling began, and when a sample was last taken or freed
    blocks               (index of the site, bytes, seconds after `started` at which it was allocated, its index in the file)
    lost                 another tool has removed the hooks: blocks freed since then are still here
    samples, dropped     samples taken, and those not kept because the table was full; dropped_bytes: estimate for those
    torn                 entries that were being written, or are damaged
    """

    pid: int
    start_ticks: int
    mode: str
    rate: int
    started: float
    updated: float
    sites: tuple[Site | None, ...]
    blocks: tuple[tuple[int, int, float, int], ...]
    lost: bool
    samples: int
    dropped: int
    dropped_bytes: float
    torn: int


def process_of(header: bytes) -> tuple[int, int] | None:
    """(pid, start_ticks) of a table's process, from the file's first HEADER_BYTES; None for any other file or version."""
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        return None
    _, version, _, _, pid, _, _, _, start_ticks, *_ = _HEADER.unpack_from(header)
    return (pid, start_ticks) if version == VERSION else None


def decode(data: bytes) -> HeapTable:
    """Read a table. Raises UsageError for other bytes, another version, or a truncated table."""
    if not data.startswith(MAGIC):
        raise UsageError("not a table of a live heap: it begins otherwise")
    if len(data) < _HEADER.size:
        raise UsageError(f"a live heap's table that is cut off after {len(data)} bytes", remedy="copy the file again")
    (
        _, version, header_bytes, file_bytes, pid, mode, rate, started_ns, start_ticks,
        blocks_at, blocks_size, sites_at, sites_size, nodes_at, nodes_size, frames_at, frames_size, names_at, names_size,
        updated_ns, samples, dropped, _unseen, dropped_bytes,
        blocks_used, sites_used, nodes_used, frames_used, names_used, flags,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if version != VERSION:
        raise UsageError(
            f"a live heap's table of version {version}, this is a reader of version {VERSION}",
            remedy="use the same version of highwater-diagnostics in the service and here",
        )
    if file_bytes > MAX_BYTES or len(data) < file_bytes:
        raise UsageError(
            f"a live heap's table that is cut off: {len(data)} of {file_bytes} bytes", remedy="copy the file again"
        )
    parts = (
        ("blocks", blocks_at, blocks_size, blocks_used, _BLOCK.size),
        ("sites", sites_at, sites_size, sites_used, _SITE.size),
        ("nodes", nodes_at, nodes_size, nodes_used, _NODE.size),
        ("frames", frames_at, frames_size, frames_used, _FRAME.size),
        ("names", names_at, names_size, names_used, 1),
    )
    for name, at, size, used, each in parts:
        if used > size or at < header_bytes or at + size * each > file_bytes:
            raise UsageError(f"a damaged table of a live heap: its {name} are not where it says")
    if mode not in _MODES or not 1 <= rate < 1 << 62 or not math.isfinite(dropped_bytes):
        raise UsageError("a damaged table of a live heap: its header makes no sense")
    names = data[names_at : names_at + names_used]
    frames = _frames(data[frames_at : frames_at + frames_used * _FRAME.size], names)
    nodes = list(_NODE.iter_unpack(data[nodes_at : nodes_at + nodes_used * _NODE.size]))
    sites, torn_sites = _sites(data[sites_at : sites_at + sites_used * _SITE.size], nodes, frames)
    blocks, torn_blocks = _blocks(data[blocks_at : blocks_at + blocks_used * _BLOCK.size], len(sites))
    return HeapTable(
        pid=pid,
        start_ticks=start_ticks,
        mode=_MODES[mode],
        rate=rate,
        started=started_ns / 1e9,
        updated=updated_ns / 1e9,
        sites=sites,
        blocks=blocks,
        lost=bool(flags & _LOST),
        samples=samples,
        dropped=dropped,
        dropped_bytes=dropped_bytes,
        torn=torn_sites + torn_blocks,
    )


def _frames(data: bytes, names: bytes) -> list[Frame]:
    known: dict[int, str] = {}

    def name(at: int) -> str:
        text = known.get(at)
        if text is None:
            size = int.from_bytes(names[at : at + 2], "little")
            text = known[at] = names[at + 2 : at + 2 + size].decode("utf-8", "replace")
        return text

    return [Frame(name(function), name(file), line) for function, file, line in _FRAME.iter_unpack(data)]


def _sites(data: bytes, nodes: list[tuple[int, ...]], frames: list[Frame]) -> tuple[tuple[Site | None, ...], int]:
    """(sites, number of torn ones); a site that cannot be read is None: its blocks are known, their stack is not."""
    sites: list[Site | None] = []
    torn = 0
    for head, node, _samples, _seen, allocated, objects, _, _, _, tail in _SITE.iter_unpack(data):
        stack = _stack(node, nodes, frames)
        if head != tail or stack is None or not (0 <= allocated < 1e18 and 0 <= objects < 1e18):
            torn += 1
            sites.append(None)
            continue
        own, route = _without_route(stack)
        sites.append(Site(own, allocated, objects, route))
    return tuple(sites), torn


def _without_route(stack: tuple[Frame, ...]) -> tuple[tuple[Frame, ...], str | None]:
    """The stack without the frame that names a route, and the route."""
    for at in range(len(stack) - 1, max(-1, len(stack) - 3), -1):
        if stack[at].file == _ROUTE_FILE:
            return (*stack[:at], *stack[at + 1 :]), stack[at].function
    return stack, None


def _stack(node: int, nodes: list[tuple[int, ...]], frames: list[Frame]) -> tuple[Frame, ...] | None:
    stack: list[Frame] = []
    while node != _NONE:
        if node >= len(nodes) or len(stack) == _MAX_DEPTH:
            return None
        parent, frame = nodes[node]
        if frame >= len(frames) or (parent != _NONE and parent >= node):
            return None
        stack.append(frames[frame])
        node = parent
    return tuple(stack)


def _blocks(data: bytes, sites: int) -> tuple[tuple[tuple[int, int, float, int], ...], int]:
    blocks: list[tuple[int, int, float, int]] = []
    torn = 0
    for place, (head, site, size, born, tail) in enumerate(_BLOCK.iter_unpack(data)):
        if head != tail or site > sites or size >= 1 << 56:
            torn += 1
        elif site:
            blocks.append((site - 1, size, born / 10, place))
    return tuple(blocks), torn


def profile(table: HeapTable, *, now: float | None = None, allocs: bool = False) -> Profile:
    """Live blocks by stack and age, and all allocations since the start by stack.

    now      wall-clock time for the ages; default: that of the last sample, for a process that has ended
    allocs   put the sample types of allocations first: tools show the first type by default
    """
    now = table.updated if now is None else now
    samples = [Sample(stack, (held, count, 0, 0), labels) for stack, held, count, labels in _alive(table, now)]
    samples += [
        Sample(site.stack, (0, 0, round(site.allocated_bytes), round(site.allocated_objects)), _labels(site))
        for site in table.sites
        if site is not None and site.allocated_bytes > 0
    ]
    return _ordered(_profile(table, samples, now, max(0.0, now - table.started)), allocs)


def in_use(table: HeapTable, *, now: float) -> Profile:
    """Live blocks alone, by stack and age, as they are at one moment: what is pushed at an interval, and so has no sums
    since the start, which would be added up. `now`: wall-clock time."""
    samples = [Sample(stack, (held, count), labels) for stack, held, count, labels in _alive(table, now)]
    return replace(_profile(table, samples, now, 0.0), sample_types=_TYPES[:2])


def _alive(table: HeapTable, now: float) -> Iterator[tuple[tuple[Frame, ...], int, int, tuple[tuple[str, str], ...]]]:
    """(stack, bytes, blocks, labels) of what is alive, for each stack and age."""
    alive: dict[tuple[int, str], list[float]] = {}
    for site, size, born, _ in table.blocks:
        row = alive.setdefault((site, _age(now - table.started - born)), [0.0, 0.0])
        weight = weight_of(size, table.rate)
        row[0] += size * weight
        row[1] += weight
    for (site, age), (held, count) in alive.items():
        yield _stack_of(table, site), round(held), round(count), (("age", age), *_labels(table.sites[site]))


def since(table: HeapTable, before: HeapTable, *, now: float, seconds: float, allocs: bool = False) -> Profile:
    """The change from `before` to `table` of the same process: new blocks (label change=new) and freed ones (change=gone).

    now       wall-clock time, for the ages
    seconds   between the two
    Raises UsageError where sampling began anew in between.
    """
    if (table.pid, table.started) != (before.pid, before.started):
        raise UsageError("sampling began anew meanwhile", remedy="ask again")
    earlier, later = set(before.blocks), set(table.blocks)
    sums: dict[tuple[int, str], list[float]] = {}
    for blocks, sign, change in ((later - earlier, 1, "new"), (earlier - later, -1, "gone")):
        for site, size, _, _ in blocks:
            row = sums.setdefault((site, change), [0.0, 0.0])
            weight = sign * weight_of(size, table.rate)
            row[0] += size * weight
            row[1] += weight
    samples = [
        Sample(
            _stack_of(table, site), (round(held), round(count), 0, 0), (("change", change), *_labels(table.sites[site]))
        )
        for (site, change), (held, count) in sums.items()
    ]
    for at, whole in enumerate(table.sites):
        old = before.sites[at] if at < len(before.sites) else None
        if whole is None or (old is None and at < len(before.sites)):
            continue
        more = whole.allocated_bytes - (old.allocated_bytes if old else 0)
        if more > 0:
            count = whole.allocated_objects - (old.allocated_objects if old else 0)
            samples.append(Sample(whole.stack, (0, 0, round(more), max(0, round(count))), _labels(whole)))
    return _ordered(_profile(table, samples, now, seconds), allocs)


def weight_of(size: int, rate: int) -> float:
    """How many blocks a sampled one of `size` bytes represents."""
    return 1 / -math.expm1(-max(size, 1) / rate)


def _profile(table: HeapTable, samples: list[Sample], now: float, duration: float) -> Profile:
    return Profile(
        kind="heap",
        sample_types=_TYPES,
        samples=tuple(samples),
        time=now,
        duration=duration,
        not_covered=tuple(_not_covered(table)),
        meta={
            "source": "live heap",
            "pid": table.pid,
            "sampled": {
                "rate_bytes": table.rate, "mode": table.mode, "since": table.started, "samples": table.samples,
                "alive": len(table.blocks), "dropped": table.dropped, "torn": table.torn, "lost": table.lost,
            },
        },
    )  # fmt: skip


def _not_covered(table: HeapTable) -> list[str]:
    notes = [
        f"what was allocated before {format_moment(table.started)}, when sampling began",
        "what C libraries take from malloc by themselves (a capture of kind memray with --native shows it)",
    ]
    if table.mode == "raw":
        notes.append("blocks of up to 512 bytes: DIAGNOSTICS_HEAP is raw")
    if table.dropped:
        size = format_value(round(table.dropped_bytes), "bytes")
        notes.append(f"{table.dropped:,} samples that the table had no room for, which stand for {size}, freed or not")
    if table.torn:
        notes.append(f"{table.torn:,} entries of the table that were being written, or are damaged")
    if table.lost:
        notes.append(
            "what was freed since another tool took the hooks out of Python's allocators: it is shown as alive"
        )
    return notes


def _ordered(profile: Profile, allocs: bool) -> Profile:
    if not allocs:
        return profile
    samples = tuple(Sample(each.stack, (*each.values[2:], *each.values[:2]), each.labels) for each in profile.samples)
    return Profile(
        profile.kind,
        (*_TYPES[2:], *_TYPES[:2]),
        samples,
        profile.time,
        profile.duration,
        profile.not_covered,
        profile.meta,
    )


def _stack_of(table: HeapTable, site: int) -> tuple[Frame, ...]:
    entry = table.sites[site]
    return (Frame("(a stack that could not be read)", "", 0),) if entry is None else entry.stack


def _labels(site: Site | None) -> tuple[tuple[str, str], ...]:
    return () if site is None or site.route is None else (("route", site.route),)


def _age(seconds: float) -> str:
    return next((name for limit, name in _AGES if seconds < limit), _OLDEST)
