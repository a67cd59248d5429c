"""What malloc has handed out, told by the library that answers for it: glibc, or the one that was preloaded in its place.

The law of this file: glibc's figures are believed only where glibc serves `malloc`. Under LD_PRELOAD of another allocator
mallinfo2 is still there, has nothing to count and says 0; that is no figure of this process. So the library that the name
`malloc` leads to is looked up (dladdr(3)) once, and only it is asked:

    glibc      mallinfo2, over all arenas, whatever MALLOC_ARENA_MAX says (glibc 2.33 and later)
    jemalloc   mallctl "stats.allocated" and "stats.resident", after "epoch" has brought them up to date (jemalloc(3))
    tcmalloc   MallocExtension_GetNumericProperty of gperftools: "generic.current_allocated_bytes" and its free lists
    others     unknown, with the library's name: mimalloc has no figure of live bytes, musl none at all
"""

from __future__ import annotations

import os
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Malloc", "libc", "read"]

# The fields of glibc's struct mallinfo2, all size_t (malloc.h).
_MALLINFO2 = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip

# What gperftools keeps for later: of its page heap, and of the caches in front of that.
_TCMALLOC_FREE = (
    b"tcmalloc.pageheap_free_bytes",
    b"tcmalloc.current_total_thread_cache_bytes",
    b"tcmalloc.central_cache_free_bytes",
    b"tcmalloc.transfer_cache_free_bytes",
)


class Malloc:
    """Bytes; None where the library does not tell, and `reason` then says why.

    live     handed out, large mappings included
    free     kept for later; not all of it is resident
    mapped   of live, in mappings of their own; 0 where the library makes no such difference
    """

    __slots__ = ("free", "live", "mapped", "reason")

    def __init__(
        self, live: int | None = None, free: int | None = None, mapped: int | None = None, reason: str | None = None
    ) -> None:
        self.live = live
        self.free = free
        self.mapped = mapped
        self.reason = reason


def read() -> Malloc:
    """Ask the library that serves malloc in this process."""
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
def libc() -> Any:
    """The names of the whole process, once: each CDLL makes a class of its own, which only the collector finds again."""
    import ctypes

    return ctypes.CDLL(None)


@cache
def _library_of(name: str) -> str:
    """The file of the library that a C name leads to; empty where there is none of this name, or nobody knows."""
    import ctypes

    try:
        address = ctypes.cast(getattr(libc(), name), ctypes.c_void_p)
        libc().dladdr  # noqa: B018  # whether there is such a name
    except AttributeError:
        return ""
    found = _file_at(address)
    if found == os.path.realpath("/proc/self/exe") and not _defined_at(address):
        # A program that is not position-independent (Debian's Python) has a jump of its own to each function that it calls,
        # and that is what the name leads to, for everybody. Where the jump goes, the loaded libraries say in their order.
        return next((library for library in _libraries() if _file_at(_own(library, name)) == library), "")
    return found


def _file_at(address: Any) -> str:
    """The file that an address belongs to; empty where there is none."""
    import ctypes

    dladdr, found = libc().dladdr, _dl_info_type()()
    dladdr.argtypes, dladdr.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_int
    if not address or not dladdr(address, ctypes.byref(found)):
        return ""
    return os.path.realpath((found.file or b"").decode(errors="replace"))


def _defined_at(address: Any) -> bool:
    """Whether the function is there, and not only a jump to it: the st_shndx of its symbol is not SHN_UNDEF (elf(5))."""
    import ctypes

    try:
        dladdr1 = libc().dladdr1
    except AttributeError:  # not glibc
        return True
    found, symbol = _dl_info_type()(), ctypes.c_void_p()
    dladdr1.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    rtld_dl_syment = 1
    if not dladdr1(address, ctypes.byref(found), ctypes.byref(symbol), rtld_dl_syment) or not symbol.value:
        return True
    st_shndx = 6  # its offset in Elf64_Sym, behind 4 bytes of name, 1 of info and 1 of visibility; 14 in Elf32_Sym
    offset = st_shndx if ctypes.sizeof(ctypes.c_void_p) == 8 else 14
    return ctypes.c_uint16.from_address(symbol.value + offset).value != 0


def _own(library: str, name: str) -> Any:
    """Where a library that is loaded, or one that it needs, has this name; None where none of them has."""
    import ctypes

    try:
        loaded = ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        return ctypes.cast(getattr(loaded, name), ctypes.c_void_p)
    except (OSError, AttributeError):
        return None


def _libraries() -> list[str]:
    """The files of the libraries that are mapped, in the order of the linker: preloaded ones, then those of the program."""
    import ctypes

    class LinkMap(ctypes.Structure):
        """struct link_map (link.h)."""

    pointer = ctypes.POINTER(LinkMap)
    LinkMap._fields_ = [
        ("at", ctypes.c_void_p),
        ("file", ctypes.c_char_p),
        ("dynamic", ctypes.c_void_p),
        ("next", pointer),
    ]
    first, rtld_di_linkmap = pointer(), 2
    dlinfo = libc().dlinfo
    dlinfo.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    if dlinfo(libc()._handle, rtld_di_linkmap, ctypes.byref(first)):
        return []
    found, each = [], first
    while each:
        file = (each.contents.file or b"").decode(errors="replace")
        if file.startswith("/"):
            found.append(os.path.realpath(file))
        each = each.contents.next
    return found


@cache
def _dl_info_type() -> Any:
    import ctypes

    names = (("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("symbol", ctypes.c_char_p), ("at", ctypes.c_void_p))
    return type("DlInfo", (ctypes.Structure,), {"_fields_": names})  # Dl_info (dlfcn.h)


@cache
def _mallinfo2_type() -> Any:
    import ctypes

    return type("Mallinfo2", (ctypes.Structure,), {"_fields_": tuple((name, ctypes.c_size_t) for name in _MALLINFO2)})


def _glibc() -> Malloc | None:
    try:
        mallinfo2 = libc().mallinfo2
    except AttributeError:
        return None
    mallinfo2.restype = _mallinfo2_type()
    info = mallinfo2()
    return Malloc(info.uordblks + info.hblkhd, info.fordblks, info.hblkhd)


def _jemalloc() -> Malloc | None:
    import ctypes

    epoch = ctypes.c_uint64(1)
    size = ctypes.c_size_t(ctypes.sizeof(epoch))
    refreshed = libc().mallctl(
        b"epoch", ctypes.byref(epoch), ctypes.byref(size), ctypes.byref(epoch), ctypes.c_size_t(size.value)
    )
    live, resident = _mallctl(b"stats.allocated"), _mallctl(b"stats.resident")
    if refreshed or live is None or resident is None:
        return None
    return Malloc(live, max(0, resident - live), 0)


def _mallctl(name: bytes) -> int | None:
    import ctypes

    value, size = ctypes.c_size_t(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_size_t))
    failed = libc().mallctl(name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return None if failed else value.value


def _tcmalloc() -> Malloc | None:
    live = _tcmalloc_property(b"generic.current_allocated_bytes")
    free = [_tcmalloc_property(name) for name in _TCMALLOC_FREE]
    if live is None:
        return None
    return Malloc(live, None if None in free else sum(part for part in free if part is not None), 0)


def _tcmalloc_property(name: bytes) -> int | None:
    import ctypes

    value = ctypes.c_size_t()
    return value.value if libc().MallocExtension_GetNumericProperty(name, ctypes.byref(value)) else None
