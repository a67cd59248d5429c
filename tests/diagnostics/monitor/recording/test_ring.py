"""The recorder's file: what was written is read; what is damaged is left out, whatever the damage."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import UsageError
from diagnostics.monitor.recording.ring import Header, RingFile, RingSize, decode

FIELDS = (("time", "seconds"), ("rss_bytes", "bytes"), ("tasks", "count"))
HEADER = Header(FIELDS, (RingSize(1.0, 8), RingSize(60.0, 4)), {"pid": 7, "worker": "0"})
# Where the file's parts are: two pages, then 12 slots of a CRC, a number and three doubles.
ENDS_AT, RINGS_AT, SLOT = 4096, 8192, 4 + 8 + 24


def written(records: int = 11, end: bool = True) -> bytes:
    file = RingFile.in_memory(HEADER)
    for number in range(1, records + 1):
        file.append(0, (1000.0 + number, number * 4096.0, math.nan if number % 2 else number))
        if number % 4 == 0:
            file.append(1, (1000.0 + number, number * 4096.0, 0.0))
    if end:
        file.write_end({"returncode": -9, "said": "killed"})
    data = bytes(file._memory)
    file.close()
    return data


def test_what_was_written_is_read_and_the_oldest_makes_room() -> None:
    found = decode(written())
    assert found.header == HEADER
    assert [record[0] for record in found.rings[0].records] == [1000.0 + number for number in range(4, 12)]
    assert [record[0] for record in found.rings[1].records] == [1004.0, 1008.0]
    assert math.isnan(found.rings[0].records[1][2])
    assert all((ring.bad, ring.lost) == (0, 0) for ring in found.rings)
    assert found.end == {"returncode": -9, "said": "killed"}


def test_an_empty_recording_is_empty() -> None:
    found = decode(written(0, end=False))
    assert [ring.records for ring in found.rings] == [(), ()]
    assert (found.end, found.end_damaged) == (None, False)


@given(st.integers(0, 20), st.permutations(["time", "tasks", "rss_bytes"]), st.integers(0, 3))
@settings(deadline=None)
def test_its_writer_reads_columns_as_everybody_reads_records(records: int, names: list[str], wanted: int) -> None:
    file = RingFile.in_memory(HEADER)
    for number in range(records):
        file.append(0, (1000.0 + number, number * 4096.0, -number))
    rows = decode(bytes(file._memory)).rings[0].records
    places = [name for name, _ in FIELDS]
    assert file.columns(0, names[:wanted]) == {
        name: [row[places.index(name)] for row in rows] for name in names[:wanted]
    }
    assert file.columns(1, ["time"]) == {"time": []}


def test_a_column_that_no_record_has_is_the_callers_error() -> None:
    with pytest.raises(ValueError, match="swap_bytes"):
        RingFile.in_memory(HEADER).columns(0, ["swap_bytes"])


WHOLE = written()
RIGHT = decode(WHOLE)


def check(data: bytes) -> None:
    """Reads damaged bytes: only a UsageError may come, and only right records may be shown."""
    try:
        found = decode(data)
    except UsageError:
        return
    assert found.header == RIGHT.header
    for ring, right in zip(found.rings, RIGHT.rings, strict=True):
        known = {repr(record) for record in right.records}
        assert all(repr(record) in known for record in ring.records)
        assert [record[0] for record in ring.records] == sorted(record[0] for record in ring.records)
        assert len(ring.records) + ring.bad + ring.lost >= len(right.records)
    assert found.end in (None, RIGHT.end)
    assert found.end is not None or found.end_damaged


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_no_flipped_byte_is_taken_for_right(position: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[position] ^= change
    check(bytes(data))


def test_no_flipped_byte_in_what_is_used_is_taken_for_right() -> None:
    rng = random.Random(1)
    for position in [*range(200), *range(ENDS_AT, ENDS_AT + 60), *range(RINGS_AT, len(WHOLE))]:
        data = bytearray(WHOLE)
        data[position] ^= rng.randrange(1, 256)
        check(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_anywhere_shows_what_is_left(length: int) -> None:
    check(WHOLE[:length])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(WHOLE)))
def test_bytes_written_over_anywhere_harm_only_what_they_hit(junk: bytes, position: int) -> None:
    check((WHOLE[:position] + junk + WHOLE[position + len(junk) :])[: len(WHOLE)])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_anything_else(junk: bytes) -> None:
    with pytest.raises(UsageError):
        decode(junk)


def test_a_torn_record_and_a_moved_one_are_bad() -> None:
    def slot(index: int) -> slice:
        return slice(RINGS_AT + index * SLOT, RINGS_AT + (index + 1) * SLOT)

    moved = bytearray(WHOLE)
    moved[slot(0)], moved[slot(1)] = moved[slot(1)], moved[slot(0)]
    torn = bytearray(WHOLE)
    torn[slot(2)] = torn[slot(2)][: SLOT // 2] + torn[slot(3)][SLOT // 2 :]
    assert [ring.bad for ring in decode(bytes(moved)).rings] == [2, 0]
    assert [ring.bad for ring in decode(bytes(torn)).rings] == [1, 0]
    gone = bytearray(WHOLE)
    gone[slot(2)] = bytes(SLOT)
    assert decode(bytes(gone)).rings[0].lost == 1


def test_a_record_of_another_recording_is_bad() -> None:
    other = RingFile.in_memory(Header(FIELDS, HEADER.rings, {"pid": 8, "worker": "0"}))
    other.append(0, (1.0, 2.0, 3.0))
    foreign = bytearray(WHOLE)
    foreign[RINGS_AT + SLOT : RINGS_AT + 2 * SLOT] = bytes(other._memory[RINGS_AT + SLOT : RINGS_AT + 2 * SLOT])
    other.close()
    assert decode(bytes(foreign)).rings[0].bad == 1


@pytest.mark.parametrize(
    "header",
    [
        Header(FIELDS, (RingSize(1.0, 10**9),), {}),
        Header(FIELDS, (RingSize(-1.0, 5),), {}),
        Header(FIELDS, (), {}),
        Header(FIELDS, (RingSize(1.0, 1),) * 5, {}),
        Header((("rss_bytes", "bytes"),), HEADER.rings, {}),
        Header((), HEADER.rings, {}),
    ],
)
def test_a_header_that_no_recorder_writes_is_refused(header: Header) -> None:
    # Its checksum is right: someone made it.
    data = bytearray(4096)
    from diagnostics.monitor.recording.ring import _write_header

    _write_header(data, header)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no recording has"):
        decode(bytes(data))


def test_a_version_of_tomorrow_is_named() -> None:
    data = bytearray(WHOLE)
    data[16] = 9
    with pytest.raises(UsageError, match="format version 9, this program reads 1"):
        decode(bytes(data))


def test_another_monitor_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    path = tmp_path / "a.ring"
    first = RingFile.create(path, HEADER)
    assert path.stat().st_blocks * 512 >= HEADER.file_bytes  # on the disk before anything is in it
    first.append(0, (1.0, 1.0, 1.0))
    with pytest.raises(BlockingIOError):
        RingFile.reopen(path)
    first.close()
    second = RingFile.reopen(path)
    second.append(0, (2.0, 2.0, 2.0))
    second.close()
    assert decode(path.read_bytes()).rings[0].records == ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="its header says"):
        RingFile.reopen(path)


def test_what_has_no_room_on_the_page_is_the_writers_error() -> None:
    with pytest.raises(ValueError, match="header takes"):
        RingFile.in_memory(Header(FIELDS, HEADER.rings, {"worker": "x" * 5000}))
    file = RingFile.in_memory(HEADER)
    with pytest.raises(ValueError, match="end takes"):
        file.write_end({"said": "x" * 5000})
    file.close()
