"""A format is recognised by content, and what is in none is refused with the reason."""

from __future__ import annotations

import gzip
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
