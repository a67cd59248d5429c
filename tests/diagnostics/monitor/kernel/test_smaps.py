"""Mappings sorted by what they are for: as smaps writes them, and in this process."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from diagnostics.analysis.balance import Regions
from diagnostics.monitor.kernel import smaps
from diagnostics.monitor.kernel.process import read_process
from diagnostics.monitor.kernel.smaps import Mapping, largest, parse, read_regions, sort

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="smaps is Linux's")

MIB = 2**20
HEAP = 64 * MIB
BASE = 0x7F0000000000  # a multiple of 64 MiB

TEXT = b"""\
55d0c0a00000-55d0c0a01000 r--p 00000000 fe:00 26723                      /usr/bin/python 3.11 (deleted)
Size:                  4 kB
KernelPageSize:        4 kB
Rss:                   4 kB
Pss:                   2 kB
VmFlags: rd mr mw me
55d0c1000000-55d0c1100000 rw-p 00000000 00:00 0                          [heap]
Size:               1024 kB
Rss:                1000 kB
AnonHugePages:         0 kB
ProtectionKey:         0
VmFlags: rd wr mr mw me ac
7f62d94e5000-7f62d94e6000 ---p 00000000 00:00 0
Size:                  4 kB
Rss:                   0 kB
7f62d94e6000-7f62d9ce6000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                  12 kB
VmFlags: rd wr mr mw me ac nh
"""


def test_smaps_is_read_with_names_that_hold_spaces_and_without_flags() -> None:
    assert list(parse(TEXT)) == [
        Mapping(
            0x55D0C0A00000, 0x55D0C0A01000, "r--p", 26723, "/usr/bin/python 3.11 (deleted)", 4096,
            frozenset({"rd", "mr", "mw", "me"}),
        ),
        Mapping(
            0x55D0C1000000, 0x55D0C1100000, "rw-p", 0, "[heap]", 1_024_000,
            frozenset({"rd", "wr", "mr", "mw", "me", "ac"}),
        ),
        Mapping(0x7F62D94E5000, 0x7F62D94E6000, "---p", 0, "", 0),
        Mapping(
            0x7F62D94E6000, 0x7F62D9CE6000, "rw-p", 0, "", 12_288,
            frozenset({"rd", "wr", "mr", "mw", "me", "ac", "nh"}),
        ),
    ]  # fmt: skip


def memory(start: int, size: int, rss: int = 0, access: str = "rw-p", *flags: str, name: str = "") -> Mapping:
    inode = 7 if name.startswith("/") else 0
    return Mapping(start, start + size, access, inode, name, rss, frozenset(flags))


def guard(end: int, size: int = 4096) -> Mapping:
    return memory(end - size, size, 0, "---p")


def uncounted(start: int, end: int) -> None:
    return None


def sorted_regions(*mappings: Mapping, counts: dict[tuple[int, int], int] | None = None) -> Regions:
    given = counts or {}
    return sort(list(mappings), lambda start, end: given.get((start, end)), 8 * MIB)


def test_each_mapping_is_counted_as_one_kind() -> None:
    found = sorted_regions(
        memory(0x1000, 4096, 11, "r-xp", name="/lib/libc.so"),
        memory(0x2000, 4096, 13, name="/lib/libc.so"),
        memory(0x3000, 4096, 17, "rw-s", name="/dev/shm/segment (deleted)"),
        memory(0x10000, 8192, 19, name="[heap]"),
        memory(0x20000, 4096, 23, name="[anon:named]"),
        memory(0x30000, 4096, 29),
        memory(0x40000, 4096, 31, name="[stack]"),
        memory(0x50000, 4096, 37, "r-xp", name="[vdso]"),
    )
    assert found == Regions(
        rss=11 + 13 + 17 + 19 + 23 + 29 + 31 + 37,
        files=11 + 13 + 17, shared=17, stacks=31, heaps=19, heaps_size=8192, anonymous=23 + 29,
    )  # fmt: skip


def test_the_largest_mapped_files_are_named_and_files_of_one_kind_by_their_folder() -> None:
    mapped = [
        memory(0x1000, 4096, 11, "r-xp", name="/lib/libc.so"),
        memory(0x2000, 4096, 13, name="/lib/libc.so"),
        *(memory(0x3000 + 4096 * at, 4096, 7, "rw-s", name=f"/dev/shm/psm_{at} (deleted)") for at in range(9)),
        memory(0x20000, 4096, 12, "rw-s", name="/dev/zero (deleted)"),
        memory(0x30000, 4096, 5, "rw-s", name="/memfd:ring (deleted)"),
    ]
    assert largest(mapped) == (
        ("/dev/shm", 63, 9),
        ("/lib/libc.so", 24, 2),
        ("anonymous shared memory", 12, 1),
        ("memfd ring", 5, 1),
    )


def test_a_stack_is_known_by_its_guard_or_by_the_kernels_mark() -> None:
    guarded = sorted_regions(guard(BASE), memory(BASE + 0, 8 * MIB, 100))
    assert guarded.stacks == 0, "what follows an arena's reserve is no stack"
    at = BASE + 4096
    assert sorted_regions(guard(at), memory(at, 8 * MIB, 100)).stacks == 100
    assert sorted_regions(guard(at, 128 * 1024), memory(at, 8 * MIB, 100)).stacks == 0, "too large for a guard"
    assert sorted_regions(memory(at, 8 * MIB, 100, "rw-p", "rd", "nh")).stacks == 100
    assert sorted_regions(memory(at, 8 * MIB, 100, "rw-p", "rd")).stacks == 0


def test_a_stack_that_the_kernel_joined_with_what_is_above_it_is_counted_page_by_page() -> None:
    at = BASE + 4096
    joined = memory(at, 9 * MIB, MIB + 8192)
    found = sorted_regions(guard(at), joined, counts={(at, at + 8 * MIB): 8192})
    assert (found.stacks, found.anonymous) == (8192, MIB)
    uncounted = sorted_regions(guard(at), joined)
    assert uncounted.rss == found.rss


def test_an_arena_is_known_by_what_it_reserves_up_to_the_next_multiple_of_64_mib() -> None:
    used = memory(BASE, 5 * MIB, 3 * MIB)
    found = sorted_regions(used, memory(BASE + 5 * MIB, HEAP - 5 * MIB, 0, "---p"))
    assert (found.heaps, found.heaps_size, found.anonymous) == (3 * MIB, 5 * MIB, 0)
    elsewhere = sorted_regions(used, memory(BASE + 6 * MIB, HEAP - 6 * MIB, 0, "---p"))
    assert (elsewhere.heaps, elsewhere.anonymous) == (0, 3 * MIB)
    short = sorted_regions(used, memory(BASE + 5 * MIB, MIB, 0, "---p"))
    assert short.heaps == 0


def test_an_arena_that_the_kernel_joined_with_what_is_below_it_is_counted_page_by_page() -> None:
    joined = memory(BASE - MIB, 6 * MIB, 4 * MIB)
    reserve = memory(BASE + 5 * MIB, HEAP - 5 * MIB, 0, "---p")
    found = sorted_regions(joined, reserve, counts={(BASE, BASE + 5 * MIB): 3 * MIB})
    assert (found.heaps, found.heaps_size, found.anonymous) == (3 * MIB, 5 * MIB, MIB)


def test_pages_are_counted_where_they_are_resident() -> None:
    pages = 64
    with mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        for page in (0, 5, 63):
            area[page * mmap.PAGESIZE] = 1
        whole = ctypes.c_char.from_buffer(area)
        start = ctypes.addressof(whole)
        pagemap = Path("/proc/self/pagemap")
        assert smaps._count(pagemap, start, start + pages * mmap.PAGESIZE) == 3 * mmap.PAGESIZE
        assert smaps._count(pagemap, start + mmap.PAGESIZE, start + 63 * mmap.PAGESIZE) == mmap.PAGESIZE
        del whole


def test_this_process_is_sorted_and_its_threads_stacks_are_seen() -> None:
    before = read_regions(os.getpid())
    assert before is not None
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        after = read_regions(os.getpid())
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert after is not None
    assert after.stacks >= before.stacks + 20 * 4096
    assert min(after.files, after.heaps, after.anonymous) > MIB
    assert after.rss == pytest.approx(
        int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * mmap.PAGESIZE, rel=0.1
    )


def test_shared_memory_of_this_process_is_told_from_its_mapped_files(tmp_path: Path) -> None:
    process = read_process(os.getpid())
    before = read_regions(os.getpid())
    assert process is not None
    assert before is not None
    (tmp_path / "index").write_bytes(bytes(16 * MIB))
    with (
        mmap.mmap(-1, 40 * MIB) as area,
        open(tmp_path / "index", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as index,
    ):
        area.write(b"x" * len(area))
        assert index.read().count(0) == len(index)
        after, again = read_regions(os.getpid()), read_process(os.getpid())
    assert after is not None
    assert again is not None
    # A file in a tmpfs, as /tmp often is, is shared memory.
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], check=True, capture_output=True, encoding="utf-8"
    ).stdout.strip()
    shared = 56 * MIB if kind == "tmpfs" else 40 * MIB
    assert after.shared - before.shared == pytest.approx(shared, abs=MIB)
    assert after.files - before.files == pytest.approx(56 * MIB, abs=MIB)
    assert again.mapped_bytes - process.mapped_bytes == pytest.approx(56 * MIB, abs=MIB)
    named = {what: size for what, size, _ in after.mapped}
    assert named["anonymous shared memory"] >= 40 * MIB
    assert named[str(tmp_path / "index")] == 16 * MIB


def test_a_process_that_cannot_be_read_has_no_regions(tmp_path: Path) -> None:
    assert read_regions(1, tmp_path) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "smaps").write_bytes(b"")  # as it is of a kernel thread
    assert read_regions(1, tmp_path) is None


def mapping(head: bytes, *lines: bytes) -> bytes:
    return b"\n".join([head, *lines, b""])


@pytest.mark.parametrize("extra", [None, 0, 1, 2], ids=["alike", "first", "second", "last"])
def test_mappings_with_the_same_lines_are_read_as_any_others(extra: int | None) -> None:
    """The quick way takes every seventh line or so. A mapping with a line more must not move the figures of those after it."""
    heads = [
        b"1000-2000 r--p 00000000 fe:00 26723       /lib/a b.so",
        b"2000-4000 rw-p 00000000 00:00 0 ",
        b"4000-5000 rw-p 0 00:00 0",
    ]
    last = [b"Private_Clean:  1 kB", b"Private_Dirty:  2 kB"]
    text = b"".join(
        mapping(
            head,
            b"Size:  4 kB",
            *([b"Weird:  9 kB"] if extra == number else []),
            b"Rss:  %d kB" % (number + 1),
            b"Pss:  %d kB" % number,
            *last,
            b"VmFlags: rd mr nh " if number else b"VmFlags: rd",
        )
        for number, head in enumerate(heads)
    )
    assert list(parse(text)) == [
        Mapping(0x1000, 0x2000, "r--p", 26723, "/lib/a b.so", 1024, frozenset({"rd"})),
        Mapping(0x2000, 0x4000, "rw-p", 0, "", 2048, frozenset({"rd", "mr", "nh"})),
        Mapping(0x4000, 0x5000, "rw-p", 0, "", 3072, frozenset({"rd", "mr", "nh"})),
    ]
    lines = smaps._Lines(text)
    assert lines.regular == (extra is None)
    if lines.regular:
        assert lines.total(b"Pss") == smaps.total(text, b"Pss") == 3 * 1024
        assert lines.total(b"Private_Clean", b"Private_Dirty") == 9 * 1024
        assert lines.total(b"Nothing") is None


def test_the_quick_way_is_taken_here_and_gives_what_the_other_gives() -> None:
    text = Path("/proc/self/smaps").read_bytes()
    assert smaps._Lines(text).regular
    assert list(parse(text)) == list(smaps._parse_any(text))
