"""Splits resident memory: disjoint parts that add up to RSS.

The law of this file: every part is bytes or unknown (None), never negative, and the known parts sum to RSS exactly: the rest
is `other`. Two views are joined: the kernel knows the resident bytes of each mapping, and not which allocator uses it; the
allocators know the bytes that they hold (their claims), and not which are resident. So each allocator's claim is met from
the mappings that its memory can be in, and never beyond the resident bytes there:

    files, stacks   as the kernel counts them
    python_*        pymalloc's arenas, from anonymous memory. At most one arena is not yet touched throughout, since a new one
                    is made only when all others are full (Objects/obmalloc.c): claims exceed what is resident by < 1 MiB
    malloc_*        malloc's heaps, which are recognised as mappings, and its large blocks, from anonymous memory.
                    Live bytes are taken as resident first; the rest of the heaps' resident bytes is free memory that was not
                    returned (mallinfo2's figure for free memory includes pages returned by malloc_trim)
    tracers         tracemalloc's tables, out of malloc's live bytes, and the live heap's, out of anonymous memory
    other           the rest: anonymous memory of neither allocator, data of libraries without a file
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["PARTS", "Balance", "Claims", "Regions", "balance", "tracemalloc_cost"]

PARTS: Final = (
    "python_live",
    "python_free",
    "malloc_live",
    "malloc_free",
    "mapped_files",
    "stacks",
    "tracers",
    "other",
)

_READ: Final = {
    "python_live": "pymalloc's statistics: blocks handed out, objects up to 512 bytes",
    "python_free": "pymalloc's arenas less its live blocks",
    "malloc_live": "malloc's own figure (mallinfo2, jemalloc, tcmalloc): blocks handed out, as far as resident, less tracers",
    "malloc_free": "smaps: malloc's heaps less the live blocks in them, at most what malloc itself calls free",
    "mapped_files": "smaps: mappings with an inode",
    "stacks": "smaps: [stack] and the threads' stacks",
    "tracers": "tracemalloc's tables, from their own figure, and the live heap's, as far as resident",
    "other": "RSS less all parts above that are known",
}


@dataclass(frozen=True, slots=True)
class Regions:
    """Resident bytes by kind of mapping; `heaps_size` is address space.

    rss         of all mappings, special ones of the kernel included
    files       mappings with an inode, of which `shared` are shared memory
    stacks      of all threads
    heaps       malloc's arenas, as far as they are recognised
    anonymous   the rest: pymalloc's arenas, malloc's large blocks, mappings of other code
    pss         proportional set size: a shared page divided by the processes that map it; None: unknown
    private     of rss, pages that no other process maps
    mapped      of files, the largest: what is mapped, bytes, and in how many mappings
    """

    rss: int
    files: int
    shared: int
    stacks: int
    heaps: int
    heaps_size: int
    anonymous: int
    pss: int | None = None
    private: int | None = None
    mapped: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Claims:
    """Bytes, in address space, that the allocators and tracers report as theirs; None where they report nothing.

    malloc_mapped   of malloc_live, in mappings of their own (blocks of 128 KiB and more)
    tracers         None if a tracer runs that does not report its tables
    live_heap       resident bytes of the sampled heap's table beside its file
    """

    python_live: int | None = None
    python_arenas: int | None = None
    malloc_live: int | None = None
    malloc_mapped: int | None = None
    malloc_free: int | None = None
    tracers: int | None = None
    live_heap: int = 0

    @classmethod
    def from_reading(cls, reading: Mapping[str, Any] | None) -> Claims:
        """From an agent's `reading`; all None where the agent did not answer."""
        if reading is None:
            return cls()
        allocators = reading.get("allocators") or {}
        traced = reading.get("tracemalloc_bytes")
        # memray does not report the size of its tables.
        tracers = None if reading.get("window") == "memray" or traced is None else tracemalloc_cost(traced)
        return cls(
            python_live=allocators.get("python_live_bytes"),
            python_arenas=allocators.get("python_arenas_bytes"),
            malloc_live=allocators.get("malloc_live_bytes"),
            malloc_mapped=allocators.get("malloc_mapped_bytes"),
            malloc_free=allocators.get("malloc_free_bytes"),
            tracers=tracers,
            live_heap=(reading.get("heap") or {}).get("private_bytes") or 0,
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """`rss` bytes and its parts, named as in PARTS; `shared`: of mapped_files, shared memory; other fields as in Regions."""

    rss: int
    parts: Mapping[str, int | None]
    shared: int | None = None
    pss: int | None = None
    private: int | None = None
    mapped: tuple[tuple[str, int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON; `read` has the source of each known part."""
        return {
            "rss_bytes": self.rss,
            "pss_bytes": self.pss,
            "private_bytes": self.private,
            "parts": dict(self.parts),
            "mapped": [{"what": what, "bytes": size, "mappings": count} for what, size, count in self.mapped],
            "read": {name: _READ[name] for name, held in self.parts.items() if held is not None},
        }


def balance(rss: int, regions: Regions | None, claims: Claims) -> Balance:
    """Split resident memory.

    rss       bytes; used only where `regions` is None (no /proc, another user's process)
    regions   from smaps; its total is then the RSS, so that parts and total are of the same moment
    """
    if regions is not None:
        rss = regions.rss
    # Without regions mappings are unknown: every claim may be met from all of RSS, and free memory is unknown.
    left = regions.anonymous if regions else rss
    sampled = 0 if claims.tracers is None else min(claims.live_heap, left)
    left -= sampled
    parts: dict[str, int | None] = dict.fromkeys(PARTS)
    if regions is not None:
        parts["mapped_files"], parts["stacks"] = regions.files, regions.stacks
    if claims.python_live is not None and claims.python_arenas is not None:
        arenas = min(claims.python_arenas, left)
        left -= arenas
        blocks = min(claims.python_live, arenas)
        parts["python_live"], parts["python_free"] = blocks, arenas - blocks
    live, free = _malloc(left, regions, claims)
    traced = claims.tracers
    if traced is not None:
        traced = min(traced, rss - sampled - _known(parts) if live is None else live)
        live = None if live is None else live - traced
        traced += sampled
    parts["malloc_live"], parts["malloc_free"], parts["tracers"] = live, free, traced
    parts["other"] = rss - _known(parts)
    if regions is None:
        return Balance(rss, parts)
    return Balance(rss, parts, regions.shared, regions.pss, regions.private, regions.mapped)


def _malloc(left: int, regions: Regions | None, claims: Claims) -> tuple[int | None, int | None]:
    """malloc's live and free resident bytes, given `left` bytes of anonymous memory that its blocks may be in."""
    if claims.malloc_live is None:
        return None, None
    if regions is None or claims.malloc_mapped is None or claims.malloc_free is None:
        return min(claims.malloc_live, left), None
    in_heaps = max(0, claims.malloc_live - claims.malloc_mapped)
    mapped = min(claims.malloc_live - in_heaps, left)
    # Heaps that were not recognised (a full arena has no reserved rest) are in anonymous memory.
    unseen = max(0, in_heaps + claims.malloc_free - regions.heaps_size)
    heaps = regions.heaps + min(unseen, left - mapped)
    live = min(in_heaps, heaps)
    return mapped + live, min(claims.malloc_free, heaps - live)


def _known(parts: Mapping[str, int | None]) -> int:
    return sum(held for held in parts.values() if held is not None)


# Bytes of one trace: an entry of 32 that malloc rounds up to 48, and a trace of 16 that it rounds up to 32. Of these
# `get_tracemalloc_memory` counts the entry's 32.
_COUNTED, _TAKEN, _BUCKET = 32, 48 + 32, 8


def tracemalloc_cost(counted: int) -> int:
    """Bytes of malloc in tracemalloc's tables, computed from the result of `tracemalloc.get_tracemalloc_memory()`.

    That counts a hash table's buckets and entries, without the traces that they point to and malloc's rounding, which is half
    (Modules/_tracemalloc.c, Python/hashtable.c). A table doubles its buckets when it has half as many entries, so that
    its counted size lies between 12 and 24 bytes a bucket: this gives the number of buckets, a power of two, and with it
    that of entries. Exact to 1 % from 10,000 traces on with few distinct tracebacks; their frames (16 bytes each) are
    not counted by Python, and stay in malloc_live.
    """
    if counted < 12:
        return counted
    buckets = 1 << ((counted // 12).bit_length() - 1)
    return _BUCKET * buckets + _TAKEN * max(0, counted - _BUCKET * buckets) // _COUNTED
