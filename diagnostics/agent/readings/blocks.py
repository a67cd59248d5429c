"""The objects in pymalloc's small blocks, by type: also those that no object refers to.

A census begins at the objects that the garbage collector tracks. It finds a string, a number, or an object of a C type
without GC support only if a tracked container holds it. Where C code has lost a reference to such an object, or keeps it in a
C table, nothing leads to it; but it lies in a block of pymalloc, with the address of its type in its second word. So the
blocks themselves are read here: each pool (16 KiB, 4 KiB before Python 3.10) begins with a header that says how large its
blocks are and which are free (CPython, Objects/obmalloc.c, `struct pool_header`, the same from 3.8 to 3.14).

The law of this file: nothing is believed that does not add up. A pool counts only if all fields of its header agree, and the
blocks of all pools must be as many as pymalloc itself says, to 5 %; else the answer is the reason why they are not known.
To be called in a forked child, before it allocates much itself.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections import Counter
from typing import Any

from .allocation import allocators
from .classes import flags_of, full_name, kinds_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["has_no_header", "read"]

# union ref (a count of 4 bytes in 8), freeblock, nextpool, prevpool, arenaindex, szidx, nextoffset, maxnextoffset
_HEADER = struct.Struct("=I4xQQQIIII")
_OVERHEAD = 48
_ALIGNMENT, _CLASSES = 16, 32
_POOL = 1 << 14 if sys.version_info >= (3, 10) else 1 << 12
_CHUNK = 1 << 20
_TOLERATED = 0.05
# Py_TPFLAGS_HAVE_GC (object.h): instances have a GC header of two words in front.
_HAVE_GC = 1 << 14
# Types with a GC header whose instances the collector may untrack, or that C code often keeps.
_WITH_HEADER = (tuple, dict, list)
_TYPE_WORD, _TYPE_WORD_BEHIND_HEADER = 1, 3
# The smallest of them, an empty tuple: the header, and the object's count, type and length.
_LEAST_WITH_HEADER = 40
_MAX_TYPES = 500


def has_no_header(kind: type) -> bool:
    """Whether instances of this class have no GC header and are never tracked: strings, numbers, many C types."""
    return not flags_of(kind) & _HAVE_GC


def read(until: float) -> dict[str, Any]:
    """`{"types": {name: [count, bytes]}, "blocks", "unknown"}`; `unknown`: why there are no types, else None.

    until   deadline, monotonic seconds
    """
    wanted = allocators.read().python_blocks
    if wanted is None:
        return {
            "types": {},
            "blocks": 0,
            "unknown": "pymalloc does not serve this interpreter, or a tracer stands before it",
        }
    kinds = {id(kind): kind for kind in kinds_below(object) if has_no_header(kind)}
    headed = {id(kind): kind for kind in _WITH_HEADER}
    types: dict[str, list[int]] = {}
    blocks = 0
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
    except OSError as error:
        return {"types": {}, "blocks": 0, "unknown": f"/proc/self/mem is not to be read: {error.strerror}"}
    try:
        for used, size, words, behind in _pools(memory, until):
            blocks += used
            # Only counts by type are kept: all that this reading allocates lies in the blocks that it counts.
            for known, addresses in ((kinds, words), (headed, behind)):
                for address, count in Counter(filter(known.__contains__, addresses)).items():
                    row = types.setdefault(full_name(known[address]), [0, 0])
                    row[0] += count
                    row[1] += count * size
    except TimeoutError:
        return {
            "types": {},
            "blocks": blocks,
            "unknown": "the blocks were not read to the end: the deadline came first",
        }
    finally:
        os.close(memory)
    if abs(blocks - wanted) > _TOLERATED * max(wanted, 1000):
        why = f"{blocks:,} blocks were found where pymalloc has handed out {wanted:,}"
        return {"types": {}, "blocks": blocks, "unknown": why}
    largest = sorted(types.items(), key=lambda item: -item[1][1])[:_MAX_TYPES]
    return {"types": dict(largest), "blocks": blocks, "unknown": None}


def _pools(memory: int, until: float) -> Iterator[tuple[int, int, list[int], list[int]]]:
    """Of each pool: blocks in use, bytes of a block, and the blocks' second and fourth words, 0 for free blocks.

    memory   descriptor of /proc/self/mem
    Raises TimeoutError at `until` (monotonic seconds).
    """
    for start, end in _regions():
        at = -(-start // _POOL) * _POOL
        while at + _POOL <= end:
            if time.monotonic() > until:
                raise TimeoutError
            try:
                chunk = os.pread(memory, min(_CHUNK, (end - at) // _POOL * _POOL), at)
            except OSError:  # unmapped since
                break
            words = memoryview(chunk[: len(chunk) // 8 * 8]).cast("Q")
            for offset in range(0, len(chunk) - _POOL + 1, _POOL):
                pool = _blocks(chunk, words, offset, at + offset)
                if pool is not None:
                    yield pool
            if len(chunk) < _POOL:
                break
            at += len(chunk) // _POOL * _POOL


def _blocks(chunk: bytes, words: Any, offset: int, address: int) -> tuple[int, int, list[int], list[int]] | None:
    """As `_pools`, of the pool at `offset` of the chunk, `address` in memory; None where the bytes there are no pool."""
    used, free, _next, _before, _arena, number, carved, last = _HEADER.unpack_from(chunk, offset)
    if number >= _CLASSES or not used:
        return None
    size = (number + 1) * _ALIGNMENT
    most = (_POOL - _OVERHEAD) // size
    beyond = carved - _OVERHEAD
    if last != _POOL - size or used > most or beyond < 0 or beyond % size or beyond // size > most:
        return None
    handed_out = beyond // size
    if handed_out < used or (free and (free - address - _OVERHEAD) % size):
        return None
    step, first = size // 8, (offset + _OVERHEAD) // 8
    stop = first + handed_out * step
    plain = words[first + _TYPE_WORD : stop : step].tolist()
    headed = words[first + _TYPE_WORD_BEHIND_HEADER : stop : step].tolist() if size >= _LEAST_WITH_HEADER else []
    left = handed_out - used
    while left and _OVERHEAD <= (inside := free - address) < _POOL:
        place = (inside - _OVERHEAD) // size
        if place >= handed_out:
            break
        plain[place] = 0
        if headed:
            headed[place] = 0
        free = words[(offset + inside) // 8]
        left -= 1
    return used, size, plain, headed


def _regions() -> Iterator[tuple[int, int]]:
    """(start, end) of each anonymous rw-p mapping: pymalloc's arenas lie in some of them."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        words = line.split(maxsplit=5)
        if words[1] == "rw-p" and words[4] == "0" and (len(words) < 6 or words[5].startswith("[anon")):
            start, _, end = words[0].partition("-")
            yield int(start, 16), int(end, 16)
