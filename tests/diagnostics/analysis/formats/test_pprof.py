"""pprof: round trips, what other writers do, what hostile bytes may cost, and Go's own tool."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import profiles, stacks

from diagnostics.analysis.formats import pprof
from diagnostics.analysis.formats.protobuf import Message
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.errors import UsageError


@example(replace(stacks(), duration=758518483.773), False)
@given(profiles(), st.booleans())
def test_round_trip(profile: Profile, compress: bool) -> None:
    assert pprof.decode(pprof.encode(profile, compress=compress)) == profile


def test_the_same_profile_gives_the_same_bytes_with_no_time_in_the_gzip_header() -> None:
    data = pprof.encode(stacks(("a b", 1)))
    assert data == pprof.encode(stacks(("a b", 1)))
    assert data[4:8] == b"\0\0\0\0"


def test_names_that_are_not_utf8_are_written_escaped() -> None:
    profile = replace(stacks(), samples=(Sample((Frame("f", "/srv/\udcff.py", 1),), (1,)),))
    assert pprof.decode(pprof.encode(profile)).samples[0].stack[0].file == "/srv/\\udcff.py"


def test_a_value_beyond_64_bits_is_refused() -> None:
    with pytest.raises(UsageError, match="64 bits"):
        pprof.encode(stacks(("a", 2**63)))


def strings(out: Message, *texts: str) -> None:
    for text in ("", *texts):
        out.data(6, text.encode())


def message(**numbers: int) -> Message:
    out = Message()
    for field, value in numbers.items():
        out.number(int(field[1:]), value)
    return out


def test_what_other_writers_do_is_read() -> None:
    """Numbers one by one, inlined lines, a location without names, numeric and repeated labels, their own comments."""
    out = Message()
    out.data(1, message(f1=1, f2=2))
    sample = message(f1=10)
    sample.number(1, 11)
    sample.number(2, -5)
    sample.data(3, message(f1=3, f3=4096, f4=2))
    sample.data(3, message(f1=4, f2=5))
    sample.data(3, message(f1=4, f2=6))
    out.data(2, sample)
    out.data(3, message(f1=1, f2=4096, f5=7))
    inlined = message(f1=10)
    inlined.data(4, message(f1=1, f2=20))
    inlined.data(4, message(f1=2, f2=30))
    out.data(4, inlined)
    out.data(4, message(f1=11, f2=1, f3=0xBEEF))
    out.data(5, message(f1=1, f2=8, f4=10))
    out.data(5, message(f1=2, f3=9, f4=10))
    strings(out, "space", "bytes", "size", "tag", "x", "y", "/bin/app", "inner", "outer", "a.c", "hello")
    out.number(9, 1_500_000_000)
    out.number(13, 11)
    out.data(99, b"a field of the future")
    found = pprof.decode(bytes(out))
    assert found.kind == "pprof"
    assert found.sample_types == (ValueType("space", "bytes"),)
    assert found.samples == (
        Sample(
            (Frame("inner", "a.c", 20), Frame("outer", "a.c", 30), Frame("0xbeef", "/bin/app", 0)),
            (-5,),
            (("size", "4096 bytes"), ("tag", "x,y")),
        ),
    )
    assert found.time == 1.5
    assert found.meta == {"comments": ["hello"]}


def mangled(data: bytes, seed: int) -> bytes:
    choose = random.Random(seed)
    out = bytearray(data)
    for _ in range(choose.randint(1, 6)):
        at = choose.randrange(len(out))
        out[at : at + choose.randint(0, 3)] = choose.randbytes(choose.randint(0, 3))
    return bytes(out)


@given(profiles(), st.integers(0, 2**32))
def test_mangled_profiles_raise_nothing_else_than_usage_errors(profile: Profile, seed: int) -> None:
    with suppress(UsageError):
        pprof.decode(mangled(pprof.encode(profile, compress=False), seed))


@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_else_than_usage_errors(data: bytes) -> None:
    with suppress(UsageError):
        pprof.decode(data)


@given(profiles(types=1))
def test_a_profile_cut_off_in_its_gzip_is_refused(profile: Profile) -> None:
    data = pprof.encode(profile)
    for cut in (2, len(data) // 2, len(data) - 1):
        with pytest.raises(UsageError, match="gzip"):
            pprof.decode(data[:cut])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello world", "not a pprof profile"),
        (b"\x1f\x8b\x08\x00rubbish that is no deflate", "gzip"),
        (b"\x0a\xff\xff\xff\xff\x7f", "are left"),
        (b"\x08" + b"\xff" * 11, "ten bytes"),
        (b"\x08\x80", "cut off"),
        (b"\x0b\x00", "wire type 3"),
        (b"\x00\x00", "field number 0"),
    ],
    ids=["empty", "text", "gzip", "length", "varint", "cut", "group", "field 0"],
)
def test_the_reason_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        pprof.decode(data)


def test_a_gzip_bomb_is_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pprof, "MAX_BYTES", 2 * 1024 * 1024)
    bomb = gzip.compress(b"\0" * (50 * 1024 * 1024), 9)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="when decompressed"):
            pprof.decode(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * pprof.MAX_BYTES


def test_stacks_that_multiply_are_refused() -> None:
    # A hundred bytes of lines in a location, named thousands of times in each of many samples.
    out = Message()
    out.data(1, message(f1=1, f2=1))
    location = message(f1=1)
    for _ in range(pprof.MAX_INLINED):
        location.data(4, message(f1=1))
    out.data(4, location)
    out.data(5, message(f1=1, f2=1))
    sample = Message()
    sample.packed(1, [1] * 16_000)
    sample.packed(2, [1])
    out.data(2, sample)
    strings(out, "x")
    with pytest.raises(UsageError, match="a stack of more than"):
        pprof.decode(bytes(out))


def test_the_sum_of_all_stacks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pprof, "MAX_FRAMES", 5)
    with pytest.raises(UsageError, match="more than 5 frames in all"):
        pprof.decode(pprof.encode(stacks(("a b c", 1), ("d e f", 1))))


@pytest.mark.needs("go", "golang-go")
def test_go_tool_pprof_reads_what_is_written(tmp_path: Path) -> None:
    profile = replace(
        stacks(("append pump <module>", 6 * 1024 * 1024), ("parse <module>", 1024 * 1024)),
        not_covered=("what was there before",),
    )
    path = tmp_path / "heap.pb.gz"
    path.write_bytes(pprof.encode(profile))

    def go(*options: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PPROF_TMPDIR": str(tmp_path),
            "CGO_ENABLED": "0",
        }
        command = ["go", "tool", "pprof", *options, str(path)]
        done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", env=environment, timeout=250)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr.lower()
        return done.stdout

    table = go("-top", "-unit=MB")
    assert "Type: inuse_space" in table
    assert [line.split()[-1] for line in table.splitlines()[-4:]] == ["append", "parse", "<module>", "pump"]
    assert "6MB 85.71%" in table
    assert "not covered: what was there before" in go("-comments")
    assert "/srv/append.py:6" in go("-traces", "-lines")
