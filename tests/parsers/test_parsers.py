"""Seconds of what `make fuzz-parsers` does for as long as is wanted, and the inputs that it found something with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.parsers import http, sse
from tests.parsers.generate import GENERATORS

CORPUS = Path(__file__).parent / "corpus"
unhurried = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

PIECES = st.sampled_from(
    [
        *(b"\n", b"\r", b"\r\n", b"data: ", b"data:x", b"event: e", b"id: 1", b"id: \0", b": c", b"[DONE]"),
        *(b"\xef\xbb\xbf", b"\xef\xbb", b"\xff"),
    ]
)
NAMES = st.sampled_from([b"x-a", b"Content-Type", b"retry-after"])
VALUES = st.sampled_from([b"", b"1", b"a b", b"text/event-stream", b"\xe4"])
BODIES = st.lists(st.binary(max_size=20), max_size=5)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A right answer, in one of the ways in which its end can be told."""
    head = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * draw(st.integers(0, 2))
    head += b"HTTP/1.1 %d Because\r\n" % draw(st.sampled_from([200, 201, 400, 429, 500, 599]))
    for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=3)):
        head += name + b": " + value + b"\r\n"
    body = draw(BODIES)
    match draw(st.sampled_from(["length", "chunked", "close"])):
        case "length":
            whole = b"".join(body)
            return head + b"content-length: %d\r\n\r\n" % len(whole) + whole
        case "chunked":
            extension = draw(st.sampled_from([b"", b";a=b"]))
            chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in body if chunk)
            trailer = draw(st.sampled_from([b"", b"x-t: y\r\n"]))
            return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"
        case _:
            return head + b"\r\n" + b"".join(body)


@unhurried
@given(st.lists(PIECES | st.binary(max_size=4), max_size=40).map(b"".join))
@example(b"\x0fdata: a\n\n\xef\xbb\xbfdata: [DONE]\n\n")
def test_event_streams_are_read_as_the_standard_says(data: bytes) -> None:
    sse.check(data)


@unhurried
@given(answers(), st.integers(0, 255))
def test_right_answers_are_read_as_h11_reads_them(answer: bytes, cut: int) -> None:
    assert http.check(bytes([cut]) + answer)


@unhurried
@given(answers(), st.integers(0, 255), st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
def test_damaged_answers_are_read_as_h11_reads_them_or_refused(
    answer: bytes, cut: int, at: int, put: bytes, instead: int
) -> None:
    http.check(bytes([cut]) + answer[:at] + put + answer[at + instead :])


@pytest.mark.parametrize(("target", "check"), [("sse", sse.check), ("http", http.check)])
def test_inputs_at_random_are_read_as_the_others_read_them(target: str, check: Callable[[bytes], object]) -> None:
    """A second of `make fuzz-parsers`, the same each time."""
    chance, others = random.Random(7), [path.read_bytes() for path in sorted(CORPUS.glob(f"{target}/*"))]
    understood = [check(GENERATORS[target](chance, others)) for _ in range(300)]
    # Of the answers h11 and the relay both understand many: what both refuse tells nothing.
    assert target == "sse" or sum(map(bool, understood)) > 30


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name[:8]}")
def test_what_was_found_once(path: Path) -> None:
    {"sse": sse.check, "http": http.check}[path.parent.name](path.read_bytes())
