"""The addresses of exported symbols in an ELF file, and the file's first load address.

Only the dynamic linker's tables are read, so a stripped file will do; a statically linked one exports nothing.
Source: elf(5).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Exports", "read_exports"]

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_SYMTAB, _DT_HASH, _DT_GNU_HASH = 5, 6, 4, 0x6FFFFEF5
_UNDEFINED = 0
_64_BIT_LITTLE = b"\x7fELF\x02\x01"


@dataclass(frozen=True, slots=True)
class Exports:
    """A file's exports: `symbols`, name -> address within the file; `base`, the file's first load address; `machine`, elf(5)'s
    number of it (62: x86-64, 183: aarch64); `value`, the 64-bit number that the file has at one symbol."""

    symbols: dict[str, int]
    base: int
    machine: int
    value: int | None = None


def read_exports(path: Path, names: Iterable[str], read: str = "") -> Exports | None:
    """The addresses of those of `names` that are exported; None for any other file than 64-bit ELF. Raises OSError.

    read   one of the names, whose 64-bit value in the file is returned as `value`
    """
    with open(path, "rb") as file:
        if file.read(6) != _64_BIT_LITTLE:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _read(data, {name.encode(): name for name in names}, read)
            except (struct.error, IndexError, StopIteration):
                return None  # truncated or damaged


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def _read(data: mmap.mmap, wanted: dict[bytes, str], read: str) -> Exports:
    _type, machine, _version, _entry, program_offset, _, _, _, each, count, _, _, _ = _HEADER.unpack_from(data)
    segments = []
    for number in range(count):
        kind, _flags, offset, address, _, size, _, align = _PROGRAM.unpack_from(data, program_offset + number * each)
        # A PT_LOAD segment is mapped from the beginning of its page.
        before = address % max(1, align) if kind == _PT_LOAD else 0
        segments.append(_Segment(kind, offset - before, address - before, size + before))
    loads = [segment for segment in segments if segment.kind == _PT_LOAD]
    base = min(segment.address for segment in loads)
    dynamic = next((segment for segment in segments if segment.kind == _PT_DYNAMIC), None)
    symbols: dict[str, int] = {}
    if dynamic is not None:
        tags = dict(_tags(data, dynamic))
        strings, table = _place(tags.get(_DT_STRTAB), loads), _place(tags.get(_DT_SYMTAB), loads)
        if strings is not None and table is not None:
            for index in range(_symbol_count(data, tags, loads)):
                name_at, _info, _other, section, value, _size = _SYMBOL.unpack_from(data, table + index * _SYMBOL.size)
                if section == _UNDEFINED:
                    continue
                name = wanted.get(_text(data, strings + name_at))
                if name is not None:
                    symbols[name] = value
    at = _place(symbols.get(read), loads)
    return Exports(symbols, base, machine, None if at is None else struct.unpack_from("<Q", data, at)[0])


def _tags(data: mmap.mmap, dynamic: _Segment) -> Iterator[tuple[int, int]]:
    for offset in range(dynamic.offset, dynamic.offset + dynamic.size, _DYNAMIC.size):
        tag, value = _DYNAMIC.unpack_from(data, offset)
        if tag == 0:
            return
        yield tag, value


def _symbol_count(data: mmap.mmap, tags: dict[int, int], loads: list[_Segment]) -> int:
    """The number of dynamic symbols, which only the hash tables tell."""
    old = _place(tags.get(_DT_HASH), loads)
    if old is not None:
        return int(struct.unpack_from("<II", data, old)[1])
    new = _place(tags.get(_DT_GNU_HASH), loads)
    if new is None:
        return 0
    buckets, first, bloom, _shift = struct.unpack_from("<IIII", data, new)
    at = new + 16 + 8 * bloom
    last = max(struct.unpack_from(f"<{buckets}I", data, at), default=0)
    if last < first:
        return int(first)
    chain = at + 4 * buckets
    while not struct.unpack_from("<I", data, chain + 4 * (last - first))[0] & 1:
        last += 1
    return int(last) + 1


def _place(address: int | None, loads: list[_Segment]) -> int | None:
    """The file offset of an address; None where no segment has it."""
    if address is None:
        return None
    for segment in loads:
        if segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    return None


def _text(data: mmap.mmap, at: int) -> bytes:
    return bytes(data[at : data.find(b"\0", at)])
