"""A format is recognised by content, and what is in none is refused with the reason."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import profiles, stacks

from diagnostics.analysis.formats import collapsed, decode, native, pprof, recognise
from diagnostics.analysis.profile import Profile
from diagnostics.errors import UsageError


@given(profiles())
def test_json_and_pprof_are_recognised_packed_or_not(profile: Profile) -> None:
    plain = pprof.encode(profile, compress=False)
    for data in (native.encode(profile), gzip.compress(native.encode(profile), 1), pprof.encode(profile), plain):
        assert decode(data) == profile


def test_what_each_begins_with() -> None:
    profile = stacks(("a b", 1))
    assert recognise(native.encode(profile)) == "json"
    assert recognise(pprof.encode(profile, compress=False)) == "pprof"
    assert recognise(collapsed.encode(profile)) == "folded"
    assert recognise(b"memray\0\r") == "memray"
    assert recognise(b"<!DOCTYPE html>") is None


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html>", b"\0" * 40, b"{", b"[" * 100_000, b'{"a":' * 100_000, b"\x7fELF"]
)
def test_what_is_no_profile_is_a_usage_error(data: bytes) -> None:
    with pytest.raises(UsageError):
        decode(data)


@given(st.binary(max_size=100))
def test_any_bytes_raise_nothing_else_than_usage_errors(data: bytes) -> None:
    with suppress(UsageError):
        decode(data)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: gzip.compress(gzip.compress(b"a;b 1\n" * 5_000_000)), "gzip within gzip"),
        (lambda: gzip.compress(b"a 1\n" * 2_000_000), "packed so tightly"),
        (lambda: gzip.compress(b'{"samples": [' + b"[]," * 2_000_000), "packed so tightly"),
        (lambda: gzip.compress(b"\x0a\x00" * 4_000_000), "packed so tightly"),
        (lambda: gzip.compress(b"") * 100_000, "64 gzip files"),
        (lambda: b"a 1\n" * (collapsed.MAX_LINES + 1), "more than 2000000 lines"),
    ],
    ids=["twice", "folded", "json", "pprof", "members", "lines"],
)
def test_a_small_file_that_unpacks_to_a_large_one_is_refused_before_it_costs(
    made: Callable[[], bytes], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        decode(made())


def test_a_profile_of_many_alike_stacks_is_not_taken_for_a_bomb() -> None:
    lines = (f"root;call_{n % 50};leaf (/srv/app/module.py:{n % 50}) {n % 977 + 1}\n" for n in range(50_000))
    assert len(decode(gzip.compress("".join(lines).encode())).samples) == 50_000


def test_a_frame_that_is_almost_one_is_read_in_time_that_follows_its_length() -> None:
    # Where reading is quadratic, this takes hours.
    frame = "x" + " (:" * 300_000 + ")"
    _, sample = decode(f"a;b 1\n{frame};leaf 1".encode()).samples
    assert sample.stack[1].function == frame
