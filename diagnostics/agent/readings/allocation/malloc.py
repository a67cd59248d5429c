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
def libc() -> Any:
    """`CDLL(None)`, the global symbols of the process; made once, because each CDLL makes a class, a reference cycle."""
    import ctypes

    return ctypes.CDLL(None)


@cache
def _library_of(name: str) -> str:
    """The path of the library that defines the C symbol `name`; empty where there is none, or it is not known."""
    import ctypes

    try:
        address = ctypes.cast(getattr(libc(), name), ctypes.c_void_p)
        libc().dladdr  # noqa: B018  # AttributeError where this libc has no dladdr
    except AttributeError:
        return ""
    path = _file_at(address)
    if path == os.path.realpath("/proc/self/exe") and not _defined_at(address):
        # In a program that is not position-independent (Debian's Python) the symbol resolves to the program's PLT entry.
        # The function is that of the first library in load order which defines the symbol.
        return next((library for library in _libraries() if _file_at(_own(library, name)) == library), "")
    return path


def _file_at(address: Any) -> str:
    """The path of the mapped file that an address lies in; empty where there is none."""
    import ctypes

    dladdr, info = libc().dladdr, _dl_info_type()()
    dladdr.argtypes, dladdr.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_int
    if not address or not dladdr(address, ctypes.byref(info)):
        return ""
    return os.path.realpath((info.file or b"").decode(errors="replace"))


def _defined_at(address: Any) -> bool:
    """Whether the address is the function and no PLT entry: its symbol's st_shndx is not SHN_UNDEF (elf(5))."""
    import ctypes

    try:
        dladdr1 = libc().dladdr1
    except AttributeError:  # not glibc
        return True
    info, symbol = _dl_info_type()(), ctypes.c_void_p()
    dladdr1.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    rtld_dl_syment = 1
    if not dladdr1(address, ctypes.byref(info), ctypes.byref(symbol), rtld_dl_syment) or not symbol.value:
        return True
    st_shndx = 6  # its offset in Elf64_Sym, after 4 bytes of name, 1 of info and 1 of visibility; 14 in Elf32_Sym
    offset = st_shndx if ctypes.sizeof(ctypes.c_void_p) == 8 else 14
    return ctypes.c_uint16.from_address(symbol.value + offset).value != 0


def _own(library: str, name: str) -> Any:
    """The address of symbol `name` in a loaded library or its dependencies; None where none of them defines it."""
    import ctypes

    try:
        loaded = ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        return ctypes.cast(getattr(loaded, name), ctypes.c_void_p)
    except (OSError, AttributeError):
        return None


def _libraries() -> list[str]:
    """The paths of the loaded libraries in the linker's search order: preloaded ones, then those of the program."""
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
    paths, each = [], first
    while each:
        file = (each.contents.file or b"").decode(errors="replace")
        if file.startswith("/"):
            paths.append(os.path.realpath(file))
        each = each.contents.next
    return paths


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
