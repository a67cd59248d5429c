"""Reads the table of a sampled live heap, `<root>/heap/*.heap`. Written by diagnostics/agent/native/live/table.c.

The law of this file: any bytes give a table or a UsageError that names the defect. The table may have been copied while its
process was writing to it, or after that was killed in the middle: entries that were being written are left out and counted.

All numbers are little-endian. The header (`_HEADER`) has the offsets of the five parts and the number of used entries of each:
    blocks   live ones: site + 1 (0: free), bytes, time of allocation in tenths of a second since the start
    sites    a stack, and the sums allocated there since the start, freed or not
    nodes    a stack is a path in a tree: parent (all ones: none) and frame; a parent comes before its children. What was
             allocated for a stream has, outermost but for a mark that it was cut, a frame whose name is the stream's route
    frames   offsets of the function's and the file's name, and the line
    names    two bytes of length, then UTF-8

Blocks and sites begin and end with a counter that is increased with each change, the last one first: an entry that was read
from front to back is consistent where both are equal.

A full table has 32,768 blocks and 8,192 stacks, and the monitor reads it every few seconds. So a part is taken apart a field at
a time, in C, and a stack only when somebody asks for it: who counts bytes by stack has most of them from the look before.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import overload

from ...errors import UsageError
from ..profile import Frame
from .blocks import LiveBlocks

__all__ = ["HEADER_BYTES", "MAGIC", "MAX_BYTES", "HeapTable", "Site", "decode", "process_of"]

MAGIC = b"HWHEAP\r\n"
VERSION = 1
# A table has 3 MiB.
MAX_BYTES = 64 * 1024 * 1024

_HEADER = struct.Struct("<8sIIQIIQqQ10IQQQQdIIIIII")
HEADER_BYTES = _HEADER.size
# Bytes of an entry. Blocks: <IIQII; sites: <IIQQddddII; nodes: <II; frames: <III.
_BLOCK, _SITE, _NODE, _FRAME = 24, 64, 8, 12
_NONE = -1
_LOST = 1
_MODES = {1: "on", 2: "raw"}
_MAX_DEPTH = 256
# The file of a frame that is none and names a route: table.c.
_ROUTE_FILE = "<route>"


@dataclass(frozen=True, slots=True)
class Site:
    """A stack (leaf first) and the estimated sums allocated there since the start; `route`: of the streams that it was for."""

    stack: tuple[Frame, ...]
    allocated_bytes: float
    allocated_objects: float
    route: str | None = None


@dataclass(frozen=True)
class HeapTable:
    """The content of a file.

    pid, start_ticks     of the process: in its own PID namespace; its start in clock ticks since boot (0: unknown)
    mode                 on, or raw: only blocks that are not pymalloc's
    rate                 mean of bytes from one sample to the next
    started, updated     wall-clock time: when sampling began, and when a sample was last taken or freed
    sites                None where one was being written, or is damaged: its blocks are known, their stack is not
    blocks               (index of the site, bytes, seconds after `started` at which it was allocated, its index in the file)
    lost                 another tool has removed the hooks: blocks freed since then are still here
    samples, dropped     samples taken, and those not kept because the table was full; dropped_bytes: estimate for those
    torn                 entries that were being written, or are damaged
    """

    pid: int
    start_ticks: int
    mode: str
    rate: int
    started: float
    updated: float
    sites: Sequence[Site | None]
    blocks: LiveBlocks
    lost: bool
    samples: int
    dropped: int
    dropped_bytes: float
    torn: int


def process_of(header: bytes) -> tuple[int, int] | None:
    """(pid, start_ticks) of a table's process, from the file's first HEADER_BYTES; None for any other file or version."""
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        return None
    _, version, _, _, pid, _, _, _, start_ticks, *_ = _HEADER.unpack_from(header)
    return (pid, start_ticks) if version == VERSION else None


def decode(data: bytes) -> HeapTable:
    """Read a table. Raises UsageError for other bytes, another version, or a truncated table."""
    if not data.startswith(MAGIC):
        raise UsageError("not a table of a live heap: it begins otherwise")
    if len(data) < _HEADER.size:
        raise UsageError(f"a live heap's table that is cut off after {len(data)} bytes", remedy="copy the file again")
    (
        _, version, header_bytes, file_bytes, pid, mode, rate, started_ns, start_ticks,
        blocks_at, blocks_size, sites_at, sites_size, nodes_at, nodes_size, frames_at, frames_size, names_at, names_size,
        updated_ns, samples, dropped, _unseen, dropped_bytes,
        blocks_used, sites_used, nodes_used, frames_used, names_used, flags,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if version != VERSION:
        raise UsageError(
            f"a live heap's table of version {version}, this is a reader of version {VERSION}",
            remedy="use the same version of highwater-diagnostics in the service and here",
        )
    if file_bytes > MAX_BYTES or len(data) < file_bytes:
        raise UsageError(
            f"a live heap's table that is cut off: {len(data)} of {file_bytes} bytes", remedy="copy the file again"
        )
    parts = (
        ("blocks", blocks_at, blocks_size, blocks_used, _BLOCK),
        ("sites", sites_at, sites_size, sites_used, _SITE),
        ("nodes", nodes_at, nodes_size, nodes_used, _NODE),
        ("frames", frames_at, frames_size, frames_used, _FRAME),
        ("names", names_at, names_size, names_used, 1),
    )
    for name, at, size, used, each in parts:
        if used > size or at < header_bytes or at + size * each > file_bytes:
            raise UsageError(f"a damaged table of a live heap: its {name} are not where it says")
    if mode not in _MODES or not 1 <= rate < 1 << 62 or not math.isfinite(dropped_bytes):
        raise UsageError("a damaged table of a live heap: its header makes no sense")
    blocks, sites, nodes, frames, names = (data[at : at + used * each] for _, at, _, used, each in parts)
    stacks = _Stacks(nodes, frames, names)
    known = _Sites(sites, stacks)
    alive, torn_blocks = _blocks(blocks, len(known))
    return HeapTable(
        pid=pid,
        start_ticks=start_ticks,
        mode=_MODES[mode],
        rate=rate,
        started=started_ns / 1e9,
        updated=updated_ns / 1e9,
        sites=known,
        blocks=alive,
        lost=bool(flags & _LOST),
        samples=samples,
        dropped=dropped,
        dropped_bytes=dropped_bytes,
        torn=known.torn + torn_blocks,
    )


def _fields(kind: str, data: bytes) -> array[int]:
    """The numbers that `data` consists of: "I", "i" (4 bytes), "Q" (8 bytes), as `array` names them."""
    numbers: array[int] = array(kind, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class _Stacks:
    """The stacks of a table, by the number of their innermost node."""

    def __init__(self, nodes: bytes, frames: bytes, names: bytes) -> None:
        self._parents, self._frame_of = _fields("i", nodes)[0::2].tolist(), _fields("I", nodes)[1::2].tolist()
        self._rows = _fields("I", frames)
        self._names = names
        self._frames: list[Frame | None] = [None] * (len(self._rows) // 3)
        self._texts: dict[int, str] = {}
        self._depths = self._measure()

    def _measure(self) -> list[int]:
        """How deep each node is, more than _MAX_DEPTH for one that leads nowhere; the last item is for `_NONE`, which is -1."""
        nowhere = _MAX_DEPTH + 1
        # A parent that does not come before its child is still nowhere when the child is looked at.
        depths = [nowhere] * len(self._parents) + [0]
        if self._in_range():
            for at, parent in enumerate(self._parents):
                depths[at] = depths[parent] + 1
            return depths
        frames = len(self._frames)
        for at, (parent, frame) in enumerate(zip(self._parents, self._frame_of, strict=True)):
            depths[at] = depths[parent] + 1 if _NONE <= parent < at and frame < frames else nowhere
        return depths

    def _in_range(self) -> bool:
        """Whether each node's parent is a node or none, and its frame a frame: so it is in a table that is not damaged."""
        parents = self._parents
        known = min(parents, default=_NONE) >= _NONE and max(parents, default=_NONE) < len(parents)
        return known and max(self._frame_of, default=-1) < len(self._frames)

    def __len__(self) -> int:
        return len(self._parents)

    def can_be_read(self, nodes: Sequence[int]) -> list[bool]:
        """Of each of these nodes whether it is one, or `_NONE`, and all that it leads to is in the table."""
        last, depths = len(self._parents), self._depths
        return [_NONE <= node < last and depths[node] <= _MAX_DEPTH for node in nodes]

    def of(self, node: int) -> tuple[Frame, ...]:
        stack: list[Frame] = []
        while node != _NONE:
            at = self._frame_of[node]
            stack.append(self._frames[at] or self._frame(at))
            node = self._parents[node]
        return tuple(stack)

    def _frame(self, at: int) -> Frame:
        function, file, line = self._rows[3 * at : 3 * at + 3]
        frame = self._frames[at] = Frame(self._text(function), self._text(file), line)
        return frame

    def _text(self, at: int) -> str:
        text = self._texts.get(at)
        if text is None:
            size = int.from_bytes(self._names[at : at + 2], "little")
            text = self._texts[at] = self._names[at + 2 : at + 2 + size].decode("utf-8", "replace")
        return text


class _Sites(Sequence[Site | None]):
    """The sites of a table; each is put together when it is asked for. `torn`: how many are None."""

    def __init__(self, data: bytes, stacks: _Stacks) -> None:
        words = _fields("i", data)
        sums = array("d", data)
        if sys.byteorder == "big":
            sums.byteswap()
        self._stacks = stacks
        self._nodes = words[1::16].tolist()
        self._bytes, self._objects = sums[3::8].tolist(), sums[4::8].tolist()
        whole = stacks.can_be_read(self._nodes)
        heads, tails = words[0::16], words[15::16]
        if heads != tails:
            whole = [may and head == tail for may, head, tail in zip(whole, heads, tails, strict=True)]
        for figures in (self._bytes, self._objects):
            # Not a number is smaller than nothing and larger than nothing: only asking each tells.
            whole = [may and 0 <= figure < 1e18 for may, figure in zip(whole, figures, strict=True)]
        self._whole = whole
        self._made: dict[int, Site] = {}
        self.torn = whole.count(False)

    def __len__(self) -> int:
        return len(self._nodes)

    @overload
    def __getitem__(self, place: int) -> Site | None: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Site | None]: ...
    def __getitem__(self, place: int | slice) -> Site | Sequence[Site | None] | None:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not self._whole[place]:
            return None
        site = self._made.get(place)
        if site is None:
            stack, route = _without_route(self._stacks.of(self._nodes[place]))
            site = self._made[place] = Site(stack, self._bytes[place], self._objects[place], route)
        return site

    def __iter__(self) -> Iterator[Site | None]:
        return map(self.__getitem__, range(len(self)))


def _without_route(stack: tuple[Frame, ...]) -> tuple[tuple[Frame, ...], str | None]:
    """The stack without the frame that names a route, and the route."""
    for at in range(len(stack) - 1, max(-1, len(stack) - 3), -1):
        if stack[at].file == _ROUTE_FILE:
            return (*stack[:at], *stack[at + 1 :]), stack[at].function
    return stack, None


def _blocks(data: bytes, sites: int) -> tuple[LiveBlocks, int]:
    """(the blocks that are alive, the number of torn ones)."""
    words = _fields("I", data)
    heads, tails = words[0::6], words[5::6]
    owners, births, sizes = words[1::6], words[4::6], _fields("Q", data)[1::3]
    torn, places = 0, range(len(owners))
    # The last byte of a size is zero where the size is below 2**56.
    may_be = data[15::_BLOCK].count(0) == len(sizes) and max(owners, default=0) <= sites
    if heads != tails or not may_be:
        whole = [
            head == tail and owner <= sites and size < 1 << 56
            for head, tail, owner, size in zip(heads, tails, owners, sizes, strict=True)
        ]
        torn = whole.count(False)
        owners = array("I", [owner if may else 0 for may, owner in zip(whole, owners, strict=True)])
    if 0 not in owners:
        return LiveBlocks(owners, sizes, births, places), torn
    owner, size, born = (
        array(kind, compress(column, owners)) for kind, column in (("I", owners), ("Q", sizes), ("I", births))
    )
    return LiveBlocks(owner, size, born, list(compress(places, owners))), torn
