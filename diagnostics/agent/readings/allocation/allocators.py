"""In-use bytes of pymalloc and malloc. No fork, no tracer, about a millisecond.

pymalloc prints its statistics to a C FILE only (`sys._debugmallocstats` gives it stderr), so it gets a memory stream. Where
our own hooks are installed before it (heap/), they step aside meanwhile. pymalloc walks its pools under the GIL: 1.2 ms at
five million blocks. glibc's mallinfo2 sums its arenas and takes their locks: up to 8 ms when fragmented, without the GIL.
Other libraries that serve malloc: see malloc.py.
"""

from __future__ import annotations

import _tracemalloc  # the C part, always built in; `tracemalloc` imports pickle, and is imported with a window
import sys

from ...reading_cache import rest_if_due
from . import malloc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Allocators", "parse_pymalloc", "parse_pymalloc_blocks", "read", "tracemalloc_bytes"]


class Allocators:
    """Bytes, or numbers of blocks; None where this interpreter or C library does not report them, and `unknown` says why.

    python_live     in allocated blocks of pymalloc (objects up to 512 bytes)
    python_arenas   in pymalloc's arenas, allocated or free
    malloc_live     allocated by malloc, its large mappings included (objects over 512 bytes, C libraries)
    malloc_free     free in malloc's arenas; not all of it is resident
    malloc_mapped   of malloc_live, in mappings of their own (128 KiB and more)
    hidden          Python's small objects come from an allocator that reports nothing: pymalloc behind a tracer (tracemalloc,
                    memray), or the mimalloc of a free-threaded build
    python_blocks   how many blocks of pymalloc are allocated
    python_large_blocks   how many blocks above 512 bytes Python's allocators have taken from malloc: if this does not grow,
                          growth of malloc_live is not Python's. CPython counts them since 3.8 (raw_allocated_blocks)
    unknown         why a figure is None, by the figure's name in `to_json`
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
        "unknown",
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
        unknown: dict[str, str] | None = None,
    ) -> None:
        self.python_live = python_live
        self.python_arenas = python_arenas
        self.malloc_live = malloc_live
        self.malloc_free = malloc_free
        self.malloc_mapped = malloc_mapped
        self.hidden = hidden
        self.python_blocks = python_blocks
        self.python_large_blocks = python_large_blocks
        self.unknown = unknown or {}

    @property
    def in_use(self) -> int | None:
        """Bytes allocated by both allocators; None while one of them reports nothing, never the other one's alone."""
        if self.hidden or self.malloc_live is None:
            return None
        return self.malloc_live + (self.python_live or 0)  # without pymalloc everything is malloc's

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
            "unknown": self.unknown,
        }


def read() -> Allocators:
    """The figures of both allocators of this process, now."""
    everything = getattr(sys, "getallocatedblocks", int)()
    text = _pymalloc()
    figures = malloc.read()
    rest_if_due()  # both have told their figures: what follows only reads the text
    small = parse_pymalloc_blocks(text)
    live, arenas = parse_pymalloc(text)
    hidden = _is_hidden(live)
    return Allocators(
        python_live=live,
        python_arenas=arenas,
        malloc_live=figures.live,
        malloc_free=figures.free,
        malloc_mapped=figures.mapped,
        hidden=hidden,
        unknown=_reasons(live, figures, hidden),
        python_blocks=small,
        # The counts are of nearly the same moment: between them only a few small blocks are allocated.
        python_large_blocks=max(0, everything - small) if small is not None and everything else None,
    )


def tracemalloc_bytes() -> int:
    """Bytes of its own tables as tracemalloc counts them, 0 while it does not trace; analysis.balance has their real size."""
    return _tracemalloc.get_tracemalloc_memory() if _tracemalloc.is_tracing() else 0


def _is_hidden(live: int | None) -> bool:
    # getallocatedblocks counts allocations through pymalloc: 0 where PYTHONMALLOC has put malloc in its place.
    return live is None and ("t" in sys.abiflags or getattr(sys, "getallocatedblocks", int)() > 0)


def _reasons(live: int | None, figures: malloc.Malloc, hidden: bool) -> dict[str, str]:
    """Why each unknown figure is, by its name in `Allocators.to_json`."""
    reasons: dict[str, str] = {}
    if live is None:
        why = "Python's small objects are malloc's here (PYTHONMALLOC=malloc)"
        if hidden:
            why = "a tracer stands before Python's allocator, or it is one that does not tell (mimalloc)"
        reasons["python_live_bytes"] = why
    if figures.reason:
        reasons["malloc_live_bytes"] = figures.reason
    if figures.reason or hidden:
        reasons["in_use_bytes"] = figures.reason or reasons["python_live_bytes"]
    return reasons


def parse_pymalloc_blocks(text: str) -> int | None:
    """Blocks in use, summed over the size classes of pymalloc's statistics; None where the text has none.

    The row of a class: its number, size of a block, number of pools, blocks in use, blocks available.
    """
    rows = [words for words in map(str.split, text.splitlines()) if len(words) == 5 and all(map(str.isdecimal, words))]
    return sum(int(words[3]) for words in rows) if rows else None


def parse_pymalloc(text: str) -> tuple[int | None, int | None]:
    """Bytes in allocated blocks, and bytes of all arenas, from pymalloc's statistics; None where the text has none.

    Their lines: `# bytes in allocated blocks = 1,234` and `2 arenas * 1048576 bytes/arena = 2,097,152`.
    """
    live = arenas = None
    for line in text.splitlines():
        label, equals, figure = line.partition("=")
        figure = figure.strip().replace(",", "")
        if equals and figure.isdecimal():
            if label.startswith("# bytes in allocated blocks"):
                live = int(figure)
            elif label.rstrip().endswith("bytes/arena"):
                arenas = int(figure)
    return live, arenas


def _pymalloc() -> str:
    """pymalloc's statistics as it prints them; empty where it does not serve Python's small objects."""
    # Its hooks stand before pymalloc, and step aside for this.
    live = sys.modules.get(f"{__package__.rsplit('.', 2)[0]}.heap._live")
    text: str = malloc.c_part().pymalloc(live and live.pymalloc_stats)
    return text
