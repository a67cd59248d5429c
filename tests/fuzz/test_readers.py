"""A few hundred mangled inputs for each reader with every run of the suite; `make fuzz` goes on for as long as it is told."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import READERS
from seeds import seeds

from diagnostics.errors import DiagnosticsError


@pytest.mark.parametrize("name", READERS)
def test_a_reader_bears_what_it_starts_from_and_what_it_once_did_not(name: str) -> None:
    for data in seeds(name):
        with suppress(DiagnosticsError):
            READERS[name](data)


@pytest.mark.parametrize("name", READERS)
@given(choose=st.data())
@settings(max_examples=100)
def test_whatever_the_bytes_a_reader_says_so_or_reads_them(name: str, choose: st.DataObject) -> None:
    out = bytearray(choose.draw(st.sampled_from(seeds(name))))
    for _ in range(choose.draw(st.integers(0, 4))):
        at = choose.draw(st.integers(0, len(out)))
        out[at : at + choose.draw(st.integers(0, 8))] = choose.draw(st.binary(max_size=8))
    with suppress(DiagnosticsError):
        READERS[name](bytes(out))
