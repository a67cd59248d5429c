"""What the allocators have in use: pymalloc's blocks and glibc's. No fork, no tracer, about a millisecond.

pymalloc tells its numbers only as text to a C FILE (`sys._debugmallocstats` prints it to stderr), so it gets a memory
stream to print to. It walks its pools under the GIL: 1.2 ms at five million blocks. glibc's mallinfo2 sums its arenas
and takes their locks: up to 8 ms when fragmented, without the GIL.
"""

from __future__ import annotations

import re
import sys
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Allocators", "parse_pymalloc", "parse_pymalloc_blocks", "read"]


# The fields of glibc's struct mallinfo2, all size_t (malloc.h).
_MALLINFO2 = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class Allocators:
    """Bytes, and blocks as a count; None where this interpreter or C library does not tell.

    python_live     in blocks that pymalloc has handed out (objects up to 512 bytes)
    python_arenas   mapped by pymalloc from the system, live or not
    malloc_live     handed out by glibc, its large mappings included (objects over 512 bytes, C libraries)
    malloc_free     kept by glibc for later; not all of it is resident
    malloc_mapped   of malloc_live, in mappings of their own (128 KiB and more)
    hidden          pymalloc holds blocks and does not tell: a tracer (tracemalloc, memray) stands before it
    python_blocks   how many blocks pymalloc has handed out
    python_large_blocks   how many blocks above 512 bytes Python's allocators have asked malloc for: with none of them, growth
                          of malloc_live is not Python's. CPython counts them since 3.8 (obmalloc.c, raw_allocated_blocks)
    """

    __slots__ = (
        "hidden",
        "malloc_free",
        "malloc_live",
        "malloc_mapped",
        "python_arenas",
        "python_blocks",
        "python_large_blocks",
        "python_live",
    )

    def __init__(
        self,
        *,
        python_live: int | None,
        python_arenas: int | None,
        malloc_live: int | None,
        malloc_free: int | None,
        malloc_mapped: int | None = None,
        hidden: bool = False,
        python_blocks: int | None = None,
        python_large_blocks: int | None = None,
    ) -> None:
        self.python_live = python_live
        self.python_arenas = python_arenas
        self.malloc_live = malloc_live
        self.malloc_free = malloc_free
        self.malloc_mapped = malloc_mapped
        self.hidden = hidden
        self.python_blocks = python_blocks
        self.python_large_blocks = python_large_blocks

    @property
    def in_use(self) -> int | None:
        """What both allocators have handed out; None while one of them does not tell, rather than the other one alone."""
        if self.hidden:
            return None
        known = [part for part in (self.python_live, self.malloc_live) if part is not None]
        return sum(known) if known else None

    def to_json(self) -> dict[str, Any]:
        return {
            "in_use_bytes": self.in_use,
            "python_live_bytes": self.python_live,
            "python_arenas_bytes": self.python_arenas,
            "malloc_live_bytes": self.malloc_live,
            "malloc_free_bytes": self.malloc_free,
            "malloc_mapped_bytes": self.malloc_mapped,
            "python_blocks": self.python_blocks,
            "python_large_blocks": self.python_large_blocks,
        }


def read() -> Allocators:
    """Ask both allocators of this process."""
    everything = getattr(sys, "getallocatedblocks", int)()
    text = _pymalloc()
    small = parse_pymalloc_blocks(text)
    live, arenas = parse_pymalloc(text)
    malloc_live, malloc_free, malloc_mapped = _glibc()
    return Allocators(
        python_live=live,
        python_arenas=arenas,
        malloc_live=malloc_live,
        malloc_free=malloc_free,
        malloc_mapped=malloc_mapped,
        hidden=_is_hidden(live),
        python_blocks=small,
        # Both counts are of nearly the same moment: what was allocated between them is a handful of small blocks.
        python_large_blocks=max(0, everything - small) if small is not None and everything else None,
    )


def _is_hidden(live: int | None) -> bool:
    # Counts what went through pymalloc; where PYTHONMALLOC put another allocator in its place there are none.
    return live is None and getattr(sys, "getallocatedblocks", int)() > 0


# class   size   num pools   blocks in use  avail blocks
_SIZE_CLASS = re.compile(r"^\s*\d+\s+\d+\s+\d+\s+(\d+)\s+\d+\s*$", re.MULTILINE)


def parse_pymalloc_blocks(text: str) -> int | None:
    """How many blocks are in use, added up over the size classes of pymalloc's own statistics."""
    rows = _SIZE_CLASS.findall(text)
    return sum(map(int, rows)) if rows else None


def parse_pymalloc(text: str) -> tuple[int | None, int | None]:
    """Bytes in allocated blocks, and bytes of all arenas, from pymalloc's own statistics."""

    def number(pattern: str) -> int | None:
        found = re.search(pattern, text, re.MULTILINE)
        return int(found[1].replace(",", "")) if found else None

    return (
        number(r"^# bytes in allocated blocks\s*=\s*([\d,]+)"),
        number(r"^\d+ arenas \* \d+ bytes/arena\s*=\s*([\d,]+)"),
    )


def _pymalloc() -> str:
    """pymalloc's own statistics as it prints them; empty where it is not in charge."""
    import ctypes  # at the first reading, not with the agent: a service that nobody asks goes without it

    libc = _libc()
    try:
        # ctypes.pythonapi keeps the GIL: the pools do not change while they are walked.
        print_stats = ctypes.pythonapi._PyObject_DebugMallocStats
        open_memstream = libc.open_memstream
    except AttributeError:  # another interpreter, or a C library without memory streams
        return ""
    print_stats.argtypes, print_stats.restype = [ctypes.c_void_p], ctypes.c_int
    open_memstream.argtypes, open_memstream.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_void_p
    libc.fclose.argtypes = libc.free.argtypes = [ctypes.c_void_p]
    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    stream = open_memstream(ctypes.byref(text), ctypes.byref(size))
    if not stream:
        return ""
    try:
        in_charge = print_stats(stream)  # 0 where a tracer stands before pymalloc, or another allocator in its place
    finally:
        libc.fclose(stream)
    try:
        written = ctypes.string_at(text.value or 0, size.value).decode("ascii", "replace") if text.value else ""
    finally:
        libc.free(text)
    return written if in_charge else ""


@cache
def _libc() -> Any:
    """The C library, once: each CDLL makes a class of its own, and a class is garbage that only the collector finds."""
    import ctypes

    return ctypes.CDLL(None)


@cache
def _mallinfo2_type() -> Any:
    import ctypes

    return type("Mallinfo2", (ctypes.Structure,), {"_fields_": tuple((name, ctypes.c_size_t) for name in _MALLINFO2)})


def _glibc() -> tuple[int | None, int | None, int | None]:
    try:
        mallinfo2 = _libc().mallinfo2
    except AttributeError:  # musl, macOS, glibc before 2.33
        return None, None, None
    mallinfo2.restype = _mallinfo2_type()
    info = mallinfo2()
    return info.uordblks + info.hblkhd, info.fordblks, info.hblkhd
