"""A live heap's table that is read a field at a time says the same as one that is read an entry at a time, damaged ones too."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from diagnostics.analysis.heap import Site
from diagnostics.analysis.heap import table as heap_table
from diagnostics.analysis.profile import Frame

NONE = 0xFFFFFFFF
ROUTE = "<route>"

Block = tuple[int, int, int, int, int]
Sums = tuple[float, float, float, float]


class Parts(NamedTuple):
    """What a table consists of, as its entries are in the file. `names` have their length in front."""

    blocks: list[Block]
    sites: list[tuple[int, int, Sums, int]]
    nodes: list[tuple[int, int]]
    frames: list[tuple[int, int, int]]
    names: bytes


counters = st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 0, 1])).map(lambda pair: (pair[0], sum(pair)))
numbers = st.one_of(st.integers(0, 8), st.sampled_from([NONE, NONE - 1, 1 << 31, 300]))
sums = st.one_of(st.floats(0, 1e12), st.sampled_from([-1.0, 1e18, float("nan"), float("inf"), -0.0]))
names = st.lists(
    st.sampled_from([b"main", b"fill", b"/srv/app.py", ROUTE.encode(), "/größe".encode(), b"\xff\xfe", b""]), max_size=6
)
blocks = st.builds(
    lambda count, site, size, born: (count[0], site, size, born, count[1]),
    counters, numbers, st.sampled_from([0, 64, 5000, (1 << 56) - 1, 1 << 56, 1 << 63]), st.integers(0, NONE),
)  # fmt: skip
sites = st.builds(
    lambda count, node, one: (count[0], node, one, count[1]), counters, numbers, st.tuples(sums, sums, sums, sums)
)
# Some nodes have a parent that is before them, as all have in a table that is not damaged.
nodes = st.lists(st.tuples(numbers, numbers, st.booleans()), max_size=12).map(
    lambda rows: [
        (parent % at if sound and at else NONE if sound else parent, frame)
        for at, (parent, frame, sound) in enumerate(rows)
    ]
)
frames = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3000)), max_size=9)
tables = st.builds(
    Parts, st.lists(blocks, max_size=30), st.lists(sites, max_size=9), nodes, frames,
    names.map(lambda texts: b"".join(len(text).to_bytes(2, "little") + text for text in texts)),
)  # fmt: skip
# A stack as deep as is believed, and one that is a frame deeper.
deep = Parts(
    [(1, 1, 10, 0, 1), (1, 2, 10, 0, 1)], [(1, 255, (1.0,) * 4, 1), (1, 256, (1.0,) * 4, 1)],
    [(at - 1 if at else NONE, 0) for at in range(300)], [(0, 0, 1)], b"\x04\x00main",
)  # fmt: skip


def written(parts: Parts) -> bytes:
    packed = (
        b"".join(struct.pack("<IIQII", *block) for block in parts.blocks),
        b"".join(
            struct.pack("<IIQQddddII", head, node, 1, 1, *sums, 0, tail) for head, node, sums, tail in parts.sites
        ),
        b"".join(struct.pack("<II", *node) for node in parts.nodes),
        b"".join(struct.pack("<III", *frame) for frame in parts.frames),
        parts.names,
    )
    places, at = [], 4096
    used = [len(part) // each for part, each in zip(packed, (24, 64, 8, 12, 1), strict=True)]
    for part, count in zip(packed, used, strict=True):
        places += [at, count]
        at += len(part)
    header = struct.pack(
        "<8sIIQIIQqQ10IQQQQdIIIIII", heap_table.MAGIC, 1, 4096, at, 7, 1, 512 * 1024, 10**18, 77, *places,
        10**18 + 1, 8, 0, 0, 0.0, *used, 0,
    )  # fmt: skip
    return header.ljust(4096, b"\0") + b"".join(packed)


def entry_by_entry(parts: Parts) -> tuple[list[Site | None], list[tuple[int, int, float, int]], int]:
    """(sites, blocks that are alive, torn entries): the file's description in `table.py`, word for word."""

    def name(at: int) -> str:
        size = int.from_bytes(parts.names[at : at + 2], "little")
        return parts.names[at + 2 : at + 2 + size].decode("utf-8", "replace")

    def stack_of(node: int) -> list[Frame] | None:
        stack: list[Frame] = []
        while node != NONE:
            if node >= len(parts.nodes) or len(stack) == 256:
                return None
            parent, frame = parts.nodes[node]
            if frame >= len(parts.frames) or not (parent == NONE or parent < node):
                return None
            function, file, line = parts.frames[frame]
            stack.append(Frame(name(function), name(file), line))
            node = parent
        return stack

    sites: list[Site | None] = []
    for head, node, (bytes_, objects, _, _), tail in parts.sites:
        stack = stack_of(node)
        if head != tail or stack is None or not 0 <= bytes_ < 1e18 or not 0 <= objects < 1e18:
            sites.append(None)
            continue
        route = None
        for place in (-1, -2):
            if len(stack) >= -place and stack[place].file == ROUTE:
                route = stack.pop(place).function
                break
        sites.append(Site(tuple(stack), bytes_, objects, route))
    torn, alive = sites.count(None), []
    for place, (head, owner, size, born, tail) in enumerate(parts.blocks):
        if head != tail or owner > len(parts.sites) or size >= 1 << 56:
            torn += 1
        elif owner:
            alive.append((owner - 1, size, born / 10, place))
    return sites, alive, torn


@settings(max_examples=80, deadline=None)
@given(tables)
@example(deep)
def test_a_table_is_read_as_its_entries_are(parts: Parts) -> None:
    table = heap_table.decode(written(parts))
    sites, alive, torn = entry_by_entry(parts)
    assert list(table.sites) == sites
    assert [table.sites[place] for place in range(len(sites))] == sites
    assert list(table.blocks) == alive
    assert table.torn == torn
