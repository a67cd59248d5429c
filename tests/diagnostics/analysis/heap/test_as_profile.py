"""The table of a live heap is read whole, or refused with what is wrong; never believed where it makes no sense."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.analysis import heap
from diagnostics.analysis.formats import decode, recognise
from diagnostics.analysis.views import top
from diagnostics.errors import UsageError

RATE = 512 * 1024
STARTED = 1_790_000_000
_NONE = 0xFFFFFFFF


def table(
    *, version: int = 1, mode: int = 1, flags: int = 0, dropped: int = 0, blocks: int = 3, pid: int = 7, more: bytes = b"",
    block: tuple[int, int, int, int, int] = (5, 1, 1000, 0, 5),
) -> bytes:  # fmt: skip
    """As the extension writes it: two stacks, `main` and `fill` called by it, and three blocks."""
    names = b"".join(len(each).to_bytes(2, "little") + each for each in (b"main", b"Cache.fill", b"/srv/app.py"))
    frames = struct.pack("<6I", 0, 18, 3, 6, 18, 41)
    nodes = struct.pack("<4I", _NONE, 0, 0, 1)
    sites = b"".join(
        struct.pack("<IIQQddddII", 9, node, 4, 4000, 4.0 * RATE, 4.0 * RATE / 1000, 1.0, 1.0, 0, 9) for node in (0, 1)
    )
    rows = b"".join(struct.pack("<IIQII", *row) for row in (block, (2, 2, 100, 6000, 2), (4, 0, 0, 0, 4)))
    parts, at = [], 4096
    for part, each in ((rows, 24), (sites, 64), (nodes, 8), (frames, 12), (names, 1)):
        parts += [at, len(part) // each]
        at += len(part)
    used = (blocks, 2, 2, 2, len(names))
    header = struct.pack(
        "<8sIIQIIQqQ10IQQQQdIIIIII", heap.MAGIC, version, 4096, at, pid, mode, RATE, STARTED * 10**9, 77, *parts,
        (STARTED + 700) * 10**9, 8, dropped, 0, 1e6 * dropped, *used, flags,
    )  # fmt: skip
    return header.ljust(4096, b"\0") + rows + sites + nodes + frames + names + more


def test_a_table_becomes_a_profile_with_ages_and_what_was_allocated() -> None:
    assert recognise(table()) == "heap"
    profile = decode(table())
    assert profile.sample_types[0].name == "inuse_space"
    assert profile.time == STARTED + 700
    alive = {(s.stack[0].function, dict(s.labels)["age"]): s.values[:2] for s in profile.samples if s.values[0]}
    # One block of 1,000 bytes stands for a little more than a rate's worth; the other was born 600 seconds later.
    assert set(alive) == {("main", "10 min to 1 h"), ("Cache.fill", "1 to 10 min")}
    assert alive["main", "10 min to 1 h"] == (RATE + 500, round((RATE + 500) / 1000))
    (fill,) = [s for s in profile.samples if s.stack[0].function == "Cache.fill" and s.values[2]]
    assert [(f.function, f.file, f.line) for f in fill.stack] == [
        ("Cache.fill", "/srv/app.py", 41),
        ("main", "/srv/app.py", 3),
    ]
    assert fill.values == (0, 0, 4 * RATE, round(4 * RATE / 1000))
    assert all(row.interval for row in top(profile).rows if row.flat)
    first = heap.profile(heap.decode(table()), allocs=True)
    assert [kind.name for kind in first.sample_types][:2] == ["alloc_space", "alloc_objects"]
    assert first.total(0) == profile.total(2)


def test_it_says_what_it_does_not_cover() -> None:
    notes = " ".join(decode(table(mode=2, flags=1, dropped=5)).not_covered)
    assert "DIAGNOSTICS_HEAP is raw" in notes
    assert "5 samples that the table had no room for" in notes
    assert "another tool took the hooks out" in notes


def test_a_block_that_was_being_written_is_left_out_and_counted() -> None:
    torn = heap.decode(table(block=(5, 1, 1000, 0, 6)))
    assert (len(torn.blocks), torn.torn) == (1, 1)
    assert "1 entries of the table that were being written" in " ".join(heap.profile(torn).not_covered)


def test_a_delta_has_what_came_and_what_went() -> None:
    before, after = heap.decode(table()), heap.decode(table(block=(7, 1, 3000, 6900, 7)))
    found = heap.since(after, before, now=STARTED + 800, seconds=30)
    changes = {dict(s.labels).get("change"): s.values[0] for s in found.samples}
    assert changes["new"] > RATE
    assert changes["gone"] < -RATE
    assert found.duration == 30
    with pytest.raises(UsageError, match="began anew"):
        heap.since(after, heap.decode(table(pid=8)), now=0, seconds=1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "begins otherwise"),
        (heap.MAGIC, "cut off after 8 bytes"),
        (table()[:100], "cut off after 100 bytes"),
        (table()[:-1], "cut off: "),
        (table(version=2), "of version 2, this is a reader of version 1"),
        (table(mode=9), "makes no sense"),
        (table(blocks=4), "its blocks are not where it says"),
    ],
)
def test_what_is_no_whole_table_of_this_version_is_refused_by_name(data: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        heap.decode(data)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(table()) - 1), st.integers(0, 255)), max_size=40),
    st.integers(0, len(table())),
)
def test_whatever_the_bytes_are_a_profile_comes_of_it_or_a_reason(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(table(more=b"\0" * 64))
    for at, value in changes:
        data[at if at > 160 else at % len(data)] = value
    try:
        read = heap.decode(bytes(data[: len(data) - cut // 8]))
    except UsageError:
        return
    found = heap.profile(read)
    for index in range(4):
        found.total(index)
        top(found, index)
    heap.since(read, read, now=1.0, seconds=1.0)


def test_a_frame_that_names_a_route_becomes_a_label() -> None:
    for cut in (False, True):
        names = b"".join(
            len(each).to_bytes(2, "little") + each
            for each in (b"/chat", b"<route>", b"fill", b"/srv/app.py", b"(cut)", b"")
        )
        at = [0, 7, 16, 22, 35, 42]
        frames = struct.pack("<9I", at[0], at[1], 0, at[2], at[3], 41, at[4], at[5], 0)
        # Outermost first: (cut,) the route, the function.
        nodes = struct.pack("<6I", _NONE, 2, 0 if cut else _NONE, 0, 1, 1)
        whole = heap.decode(table_of(names, frames, nodes, site=2))
        (site,) = whole.sites
        assert site is not None
        assert site.route == "/chat"
        assert [frame.function for frame in site.stack] == (["fill", "(cut)"] if cut else ["fill"])
        alive, allocated = heap.profile(whole, now=STARTED + 700).samples
        assert alive.labels == (("age", "10 min to 1 h"), ("route", "/chat"))
        assert allocated.labels == (("route", "/chat"),)
        assert heap.in_use(whole, now=STARTED + 700).samples[0].labels == alive.labels


def table_of(names: bytes, frames: bytes, nodes: bytes, site: int) -> bytes:
    """With one site, at this node, and one block."""
    sites = struct.pack("<IIQQddddII", 9, site, 1, 1000, 1.0 * RATE, 4.0, 1.0, 1.0, 0, 9)
    blocks = struct.pack("<IIQII", 5, 1, 1000, 0, 5)
    parts: list[int] = []
    body = b""
    for part, each in ((blocks, 24), (sites, 64), (nodes, 8), (frames, 12), (names, 1)):
        parts += [4096 + len(body), len(part) // each]
        body += part
    header = struct.pack(
        "<8sIIQIIQqQ10IQQQQdIIIIII", heap.MAGIC, 1, 4096, 4096 + len(body), 7, 1, RATE, STARTED * 10**9, 77, *parts,
        (STARTED + 700) * 10**9, 8, 0, 0, 0.0, *parts[1::2], 0,
    )  # fmt: skip
    return header.ljust(4096, b"\0") + body
