"""A sampled live heap as a Profile: what is alive, by stack, age and route, and all that was allocated since the start.

The table that it is made of is read by `table.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ...errors import UsageError
from ..profile import Frame, Profile, Sample, ValueType
from ..units import format_moment, format_value
from .table import HeapTable, Site

__all__ = ["in_use", "profile", "since", "weight_of"]

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
