"""/proc/<pid>/smaps, each mapping classified by its use: files, thread stacks, malloc's heaps, other anonymous memory.

The law of this file: a mapping is recognised by the traits that the C library and the kernel give it, never by its size.
Reading costs a few milliseconds and about ten more per GiB resident (the kernel walks the page tables). It works while the
process is stuck.

How the kinds are recognised, on Linux with glibc (malloc/arena.c, nptl/allocatestack.c) and musl:

    files      the mapping has an inode: libraries, their private data, mmap()ed files, shared memory, which may also be a file
               in a tmpfs: how much of it there is, /proc/<pid>/status tells (RssShmem, since Linux 4.5)
    stacks     [stack]; an anonymous mapping right above a guard of at most 64 KiB without any access; or one that the kernel
               marks `nh`, as it does since Linux 6.7 where MAP_STACK was asked for (the only sign where guards are inside
               the mapping, as glibc 2.42 makes them)
    heaps      [heap]; and malloc's further arenas: they begin at a multiple of 64 MiB and reserve what they do not use
               yet, without access, up to the next multiple
    anonymous  the rest: pymalloc's arenas, malloc's large blocks, anything that is mmap()ed without a file

The kernel joins neighbours of the same kind, before 6.7 also a thread's stack and whatever was mapped above it. Where a mapping
is only partly a stack or a heap, its pages are counted in /proc/<pid>/pagemap.
"""

from __future__ import annotations

import re
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ...analysis.balance import Regions
from .proc_file import read_whole
from .process import shared_bytes

__all__ = ["Mapping", "largest", "parse", "read_regions", "sort", "total"]

# (start, end) -> resident bytes between these addresses; None where pagemap cannot be read.
Count = Callable[[int, int], int | None]

_PAGE_BYTES = resource.getpagesize()
_HEAP_BYTES = 64 * 1024**2  # glibc's HEAP_MAX_SIZE on 64 bits
_GUARD_BYTES = 64 * 1024
_DEFAULT_STACK_BYTES = 8 * 1024**2
# So many of the largest mapped files and folders are named.
_NAMED = 5
_DELETED = " (deleted)"

# One mapping: a line as in /proc/<pid>/maps, then its figures in kB, then its flags.
_MAPPING = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)\n"
    rb"(?:(?!Rss:)[A-Z].*\n)*Rss: +(\d+) kB\n"
    rb"(?:(?!VmFlags:)[A-Z].*\n)*(?:VmFlags:(.*)\n)?",
    re.MULTILINE,
)


class Mapping(NamedTuple):
    """One mapping; `start`, `end` are addresses, `rss` bytes, `inode` 0 for memory without a file."""

    start: int
    end: int
    access: str
    inode: int
    name: str
    rss: int
    flags: frozenset[str] = frozenset()

    @property
    def is_anonymous(self) -> bool:
        return self.inode == 0 and not self.name

    @property
    def is_reserved(self) -> bool:
        """Whether the mapping is address space without access: a guard, or the unused part of an arena."""
        return self.is_anonymous and self.access.startswith("---")

    @property
    def is_shared_memory(self) -> bool:
        return self.inode != 0 and self.name.startswith(("/dev/shm/", "/dev/zero", "/memfd:", "/SYSV"))  # noqa: S108

    @property
    def file(self) -> str:
        """What is mapped, in words where it is no file that anybody could open."""
        name = self.name.removesuffix(_DELETED)
        if name == "/dev/zero" and name != self.name:
            return "anonymous shared memory"
        if name.startswith("/SYSV"):
            return "System V shared memory"
        return f"memfd {name.removeprefix('/memfd:')}" if name.startswith("/memfd:") else name


def read_regions(pid: int, proc: Path = Path("/proc")) -> Regions | None:
    """Classify the memory of process `pid`; None where it has ended, is another user's, or the kernel has no smaps."""
    folder = proc / str(pid)
    try:
        text = read_whole(f"{folder}/smaps")
    except OSError:
        return None
    lines = _Lines(text)
    mappings = list(lines.mappings() if lines.regular else _parse_any(text))
    if not mappings:  # an ending process, or a kernel thread
        return None
    own = (b"Private_Clean", b"Private_Dirty")
    sorted_ = sort(mappings, lambda start, end: _count(folder / "pagemap", start, end), _stack_bytes(folder / "limits"))
    return replace(
        sorted_,
        shared=sorted_.shared if (shared := shared_bytes(pid, proc)) is None else min(shared, sorted_.files),
        pss=lines.total(b"Pss") if lines.regular else total(text, b"Pss"),
        private=lines.total(*own) if lines.regular else total(text, *own),
        mapped=largest(mapping for mapping in mappings if mapping.inode),
    )


def largest(mappings: Iterable[Mapping]) -> tuple[tuple[str, int, int], ...]:
    """Of mapped files, the largest: name, resident bytes, number of mappings.

    A folder is named in place of its files where none of these has most of it: files of one kind often have names of their own.
    """
    folders: dict[str, list[Mapping]] = {}
    for mapping in mappings:
        folders.setdefault(mapping.file.rpartition("/")[0] or mapping.file, []).append(mapping)
    named = []
    for folder, inside in folders.items():
        whole = sum(mapping.rss for mapping in inside)
        files: Counter[str] = Counter()
        for mapping in inside:
            files[mapping.file] += mapping.rss
        file, size = files.most_common(1)[0]
        if 2 * size >= whole:
            named.append((file, size, sum(mapping.file == file for mapping in inside)))
        else:
            named.append((folder, whole, len(inside)))
    return tuple(sorted(named, key=lambda each: -each[1])[:_NAMED])


def total(text: bytes, *names: bytes) -> int | None:
    """The sum in bytes of all lines with these names in smaps or smaps_rollup; None where there is no such line."""
    sizes = re.findall(rb"^(?:" + rb"|".join(names) + rb"): +(\d+) kB$", text, re.MULTILINE)
    return 1024 * sum(map(int, sizes)) if sizes else None


class _Lines:
    """The lines of smaps by the place that they have in each mapping, where all mappings have the same lines: as one kernel
    writes them. Taking every twenty-fourth line is five times as fast as looking for them all.
    """

    def __init__(self, text: bytes) -> None:
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        fields = takewhile(bytes.isupper, (line[:1] for line in lines[1:]))
        width = 1 + sum(1 for _ in fields)
        self.heads = lines[::width]
        self.by_name = {lines[at].partition(b":")[0]: lines[at::width] for at in range(1, min(width, len(lines)))}
        # A mapping with more or fewer lines than the first would have moved all heads after it.
        heads = not any(map(bytes.isupper, (head[:1] for head in self.heads)))
        self.regular = heads and len(lines) % width == 0 and self._named(b"Rss")

    def _named(self, name: bytes) -> bool:
        return name in self.by_name and all(line.startswith(name + b":") for line in self.by_name[name])

    def sizes(self, name: bytes) -> list[int] | None:
        """In bytes, one of each mapping; None where there are no such lines."""
        if not self._named(name):
            return None
        start = len(name) + 1
        return [1024 * int(line[start:-3]) for line in self.by_name[name]]

    def total(self, *names: bytes) -> int | None:
        """As the function `total`."""
        sizes = [each for name in names if (each := self.sizes(name)) is not None]
        return sum(map(sum, sizes)) if sizes else None

    def mappings(self) -> Iterator[Mapping]:
        flags = [line[8:] for line in self.by_name.get(b"VmFlags", ())] or [b""] * len(self.heads)
        known = {each: frozenset(each.decode().split()) for each in set(flags)}
        for head, rss, flag in zip(self.heads, self.sizes(b"Rss") or (), flags, strict=True):
            span, access, _, _, inode, *name = head.split(None, 5)
            start, _, end = span.partition(b"-")
            named = name[0].decode("utf-8", "replace") if name else ""
            yield Mapping(int(start, 16), int(end, 16), access.decode(), int(inode), named, rss, known[flag])


def parse(text: bytes) -> Iterator[Mapping]:
    """The mappings of smaps, in their order."""
    lines = _Lines(text)
    return lines.mappings() if lines.regular else _parse_any(text)


def _parse_any(text: bytes) -> Iterator[Mapping]:
    for match in _MAPPING.finditer(text):
        start, end, access, inode, name, rss, flags = match.groups(b"")
        yield Mapping(
            int(start, 16),
            int(end, 16),
            access.decode(),
            int(inode),
            name.decode("utf-8", "replace"),
            int(rss) * 1024,
            frozenset(flags.decode().split()),
        )


def sort(mappings: list[Mapping], count: Count, stack_bytes: int = _DEFAULT_STACK_BYTES) -> Regions:
    """Add the mappings up by their kind. `stack_bytes`: assumed of a thread's stack that was merged with other memory."""
    files = shared = stacks = heaps = heaps_size = anonymous = special = 0
    for index, mapping in enumerate(mappings):
        below = mappings[index - 1] if index else None
        above = mappings[index + 1] if index + 1 < len(mappings) else None
        if mapping.inode:
            files += mapping.rss
            shared += mapping.rss if mapping.is_shared_memory else 0
        elif mapping.name == "[heap]":
            heaps += mapping.rss
            heaps_size += mapping.end - mapping.start
        elif mapping.name == "[stack]":
            stacks += mapping.rss
        elif mapping.name and not mapping.name.startswith("[anon"):  # [vdso], [vvar]
            special += mapping.rss
        elif (stack_end := _stack_end(mapping, below, stack_bytes)) is not None:
            part = _part(mapping, mapping.start, stack_end, count)
            stacks += part
            anonymous += mapping.rss - part
        elif (heap_start := _heap_start(mapping, above)) is not None:
            part = _part(mapping, heap_start, mapping.end, count)
            heaps += part
            heaps_size += mapping.end - heap_start
            anonymous += mapping.rss - part
        else:
            anonymous += mapping.rss
    return Regions(
        rss=files + stacks + heaps + anonymous + special,
        files=files,
        shared=shared,
        stacks=stacks,
        heaps=heaps,
        heaps_size=heaps_size,
        anonymous=anonymous,
    )


def _stack_end(mapping: Mapping, below: Mapping | None, stack_bytes: int) -> int | None:
    """The end address of the stack at the beginning of `mapping`; None if there is none."""
    if mapping.is_reserved:
        return None
    if "nh" in mapping.flags:
        return mapping.end
    guarded = (
        below is not None
        and below.is_reserved
        and below.end == mapping.start
        and below.end - below.start <= _GUARD_BYTES
        # The reserved rest of an arena may be as small as a guard, but ends at a multiple of `_HEAP_BYTES`.
        and below.end % _HEAP_BYTES != 0
    )
    return min(mapping.end, mapping.start + stack_bytes) if guarded else None


def _heap_start(mapping: Mapping, above: Mapping | None) -> int | None:
    """The start address of the arena at the end of `mapping`; None if there is none."""
    start = (mapping.end - 1) // _HEAP_BYTES * _HEAP_BYTES
    reserves = (
        above is not None and above.is_reserved and above.start == mapping.end and above.end >= start + _HEAP_BYTES
    )
    return start if reserves and start >= mapping.start and not mapping.is_reserved else None


def _part(mapping: Mapping, start: int, end: int, count: Count) -> int:
    """Resident bytes of `mapping` between two addresses; an upper bound where pages cannot be counted."""
    if (start, end) == (mapping.start, mapping.end):
        return mapping.rss
    counted = count(start, end)
    return min(mapping.rss, end - start if counted is None else counted)


# The highest bit of a page's eight bytes: the page is resident (Documentation/admin-guide/mm/pagemap.rst).
_PRESENT = bytes(byte >> 7 for byte in range(256))


def _count(pagemap: Path, start: int, end: int) -> int | None:
    first, pages = start // _PAGE_BYTES, (end - start) // _PAGE_BYTES
    try:
        with open(pagemap, "rb", buffering=0) as file:
            file.seek(first * 8)
            entries = file.read(pages * 8)
    except OSError:
        return None
    return entries[7::8].translate(_PRESENT).count(1) * _PAGE_BYTES


def _stack_bytes(limits: Path) -> int:
    """The default size of a thread's stack: the process's RLIMIT_STACK."""
    try:
        match = re.search(r"^Max stack size +(\d+)", limits.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    return int(match[1]) if match else _DEFAULT_STACK_BYTES
