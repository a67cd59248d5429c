"""malloc's in-use bytes, from the library that serves `malloc`: glibc, or an allocator that was preloaded in its place.

The law of this file: glibc's figures are believed only where glibc serves `malloc`. Under LD_PRELOAD of another allocator
mallinfo2 still exists and returns 0, which is no figure of this process. So the library to which the symbol `malloc`
resolves is looked up (dladdr(3)) once, and only its interface is called:

    glibc      mallinfo2, over all arenas, whatever MALLOC_ARENA_MAX says (glibc 2.33 and later)
    jemalloc   mallctl "stats.allocated" and "stats.resident", after "epoch" has brought them up to date (jemalloc(3))
    tcmalloc   MallocExtension_GetNumericProperty of gperftools: "generic.current_allocated_bytes" and its free lists
    others     unknown, with the library's name: mimalloc has no figure of live bytes, musl none at all
"""

from __future__ import annotations

from functools import cache

from ...reading_cache import stretches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Malloc", "c_part", "read"]

# gperftools' free bytes: of its page heap, and of the caches in front of it.
_TCMALLOC_FREE = (
    b"tcmalloc.pageheap_free_bytes",
    b"tcmalloc.current_total_thread_cache_bytes",
    b"tcmalloc.central_cache_free_bytes",
    b"tcmalloc.transfer_cache_free_bytes",
)


class Malloc:
    """Bytes; None where the library does not report them, and `reason` then says why.

    live     allocated, large mappings included
    free     free in the allocator's arenas; not all of it is resident
    mapped   of live, in mappings of their own; 0 where the library does not distinguish them
    """

    __slots__ = ("free", "live", "mapped", "reason")

    def __init__(
        self, live: int | None = None, free: int | None = None, mapped: int | None = None, reason: str | None = None
    ) -> None:
        self.live = live
        self.free = free
        self.mapped = mapped
        self.reason = reason


@cache
def c_part() -> Any:
    """What asks the C libraries: the extension `_figures`; where that has not been built, `by_ctypes`."""
    try:
        from . import _figures
    except ImportError:
        from . import by_ctypes

        return by_ctypes
    return _figures


def read() -> Malloc:
    """The figures of the library that serves malloc in this process."""
    library = _library_of("malloc")
    name = library.rpartition("/")[2] or "the program itself"
    if _library_of("mallctl") == library:
        return _jemalloc() or Malloc(reason=f"{name} serves malloc and was built without statistics")
    if _library_of("MallocExtension_GetNumericProperty") == library:
        return _tcmalloc() or Malloc(reason=f"{name} serves malloc and does not know its own figures")
    if name.startswith(("libc.so", "libc-2")):
        return _glibc() or Malloc(reason=f"{name} has no mallinfo2: glibc tells its figures since 2.33")
    return Malloc(reason=f"{name} serves malloc and tells no figure of live bytes that we can read")


@cache
def _library_of(symbol: str) -> str:
    library: str = c_part().serves(symbol)
    return library


def _glibc() -> Malloc | None:
    figures = stretches.without_gil(c_part().mallinfo2)
    if not figures:
        return None
    live, free, mapped = figures
    return Malloc(live + mapped, free, mapped)


def _jemalloc() -> Malloc | None:
    from .by_ctypes import mallctl, refresh

    refreshed, live, resident = refresh(), mallctl(b"stats.allocated"), mallctl(b"stats.resident")
    if not refreshed or live is None or resident is None:
        return None
    return Malloc(live, max(0, resident - live), 0)


def _tcmalloc() -> Malloc | None:
    from .by_ctypes import numeric_property

    live = numeric_property(b"generic.current_allocated_bytes")
    free = [numeric_property(name) for name in _TCMALLOC_FREE]
    if live is None:
        return None
    return Malloc(live, None if None in free else sum(part for part in free if part is not None), 0)
