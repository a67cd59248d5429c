"""What the allocators of this process say of themselves, by ctypes: for an installation without the extension `_figures`, which
says the same and takes a quarter of a MiB less of the service's memory; and what that has not, of jemalloc and tcmalloc.
"""

from __future__ import annotations

import os
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["mallctl", "mallinfo2", "numeric_property", "pymalloc", "refresh", "serves"]

# The fields of glibc's struct mallinfo2, all size_t (malloc.h).
_MALLINFO2 = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


@cache
def libc() -> Any:
    """`CDLL(None)`, the global symbols of the process; made once, because each CDLL makes a class, a reference cycle."""
    import ctypes

    return ctypes.CDLL(None)


@cache
def serves(name: str) -> str:
    """The path of the library that defines the C symbol `name`; empty where there is none, or it is not known.

    Of a symbol that the program itself defines it is what the program was called, which need not be a path.
    """
    import ctypes

    try:
        address = ctypes.cast(getattr(libc(), name), ctypes.c_void_p)
        libc().dladdr  # noqa: B018  # AttributeError where this libc has no dladdr
    except AttributeError:
        return ""
    path = _file_at(address)
    if not _defined_at(address):
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


def mallinfo2() -> tuple[int, ...]:
    """glibc's `uordblks`, `fordblks` and `hblkhd` over all arenas; nothing before its 2.33, and where there is no glibc."""
    try:
        call = libc().mallinfo2
    except AttributeError:
        return ()
    call.restype = _mallinfo2_type()
    info = call()
    return info.uordblks, info.fordblks, info.hblkhd


def mallctl(name: bytes) -> int | None:
    """A figure of jemalloc's (mallctl(3)), as of the last `refresh`; None where it has none of that name."""
    import ctypes

    value, size = ctypes.c_size_t(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_size_t))
    failed = libc().mallctl(name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return None if failed else value.value


def refresh() -> bool:
    """Bring jemalloc's figures up to date; False where it was built without them."""
    import ctypes

    epoch = ctypes.c_uint64(1)
    size = ctypes.c_size_t(ctypes.sizeof(epoch))
    return not libc().mallctl(
        b"epoch", ctypes.byref(epoch), ctypes.byref(size), ctypes.byref(epoch), ctypes.c_size_t(size.value)
    )


def numeric_property(name: bytes) -> int | None:
    """A figure of gperftools' tcmalloc; None where it has none of that name."""
    import ctypes

    value = ctypes.c_size_t()
    return value.value if libc().MallocExtension_GetNumericProperty(name, ctypes.byref(value)) else None


def pymalloc(print_into: Callable[[int], int] | None) -> str:
    """pymalloc's statistics as it prints them; empty where it does not serve Python's small objects.

    print_into   is called first with the address of a C FILE, prints them into it, and returns whether pymalloc is in charge,
                 or -1 where it has printed nothing
    """
    import ctypes

    try:
        # ctypes.pythonapi keeps the GIL: the pools do not change while they are walked.
        print_stats = ctypes.pythonapi._PyObject_DebugMallocStats
        open_memstream = libc().open_memstream
    except AttributeError:  # another interpreter, or a C library without memory streams
        return ""
    print_stats.argtypes, print_stats.restype = [ctypes.c_void_p], ctypes.c_int
    open_memstream.argtypes, open_memstream.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_void_p
    libc().fclose.argtypes = libc().free.argtypes = [ctypes.c_void_p]
    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    stream = open_memstream(ctypes.byref(text), ctypes.byref(size))
    if not stream:
        return ""
    try:
        in_charge = -1 if print_into is None else print_into(stream)
        if in_charge < 0:
            in_charge = print_stats(stream)
    finally:
        libc().fclose(stream)
    try:
        statistics = ctypes.string_at(text.value or 0, size.value).decode("ascii", "replace") if text.value else ""
    finally:
        libc().free(text)
    return statistics if in_charge else ""
