"""The numbers of events: whatever the upstream sends and however it is cut, a client can say which events it has."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.sse import Event, EventDecoder, comment, encode
from relay.resume.ids import WITHOUT_NUMBERS, difference
from relay.resume.numbering import Numbering

LINES = st.sampled_from(
    ["data: a", "data:", "data: b c", "event: x", "id: theirs", "retry: 5", ": note", ":", "data", "x: y"]
)
BLOCKS = st.lists(LINES, max_size=4)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    end = draw(ENDS)
    mark = draw(st.sampled_from(["", "\ufeff"]))
    blocks = draw(st.lists(BLOCKS, max_size=8))
    return (mark + "".join("".join(line + end for line in block) + end for block in blocks)).encode()


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[start:end] for start, end in pairwise(at)]


def numbered(chunks: list[bytes]) -> tuple[bytes, list[bytes]]:
    numbering = Numbering("s")
    out, kept = b"", []
    for chunk in chunks:
        piece, events = numbering.feed(chunk)
        out += piece
        kept += events
    assert numbering.number == len(kept)
    return out, kept


def decoded(raw: bytes) -> list[Event]:
    return EventDecoder().feed(raw)


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_cut_changes_nothing(whole: bytes, places: list[int]) -> None:
    assert numbered(cut(whole, places)) == numbered([whole]) == numbered([whole[n : n + 1] for n in range(len(whole))])


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_client_gets_the_events_of_the_upstream_with_ids_that_grow(whole: bytes, places: list[int]) -> None:
    out, kept = numbered(cut(whole, places))
    events = decoded(out)
    assert [(event.event, event.data) for event in events] == [(event.event, event.data) for event in decoded(whole)]
    numbers = [int(event.id.removeprefix("s:")) for event in events]
    assert numbers == sorted(set(numbers))
    assert not numbers or numbers[-1] <= len(kept)


@given(streams(), st.integers(0, 10))
def test_what_is_kept_is_what_was_sent(whole: bytes, after: int) -> None:
    out, kept = numbered([whole])
    numbering = Numbering("s")
    again = b"".join(numbering.frame(event, number) for number, event in enumerate(kept, 1))
    assert decoded(again) == decoded(out)
    rest = b"".join(numbering.frame(event, number) for number, event in enumerate(kept, 1) if number > after)
    assert decoded(rest) == [event for event in decoded(out) if int(event.id.removeprefix("s:")) > after]


def test_comments_go_on_at_once_and_are_no_events() -> None:
    numbering = Numbering("s")
    assert numbering.feed(b": working\n\n") == (b": working\n", [])
    assert numbering.feed(comment("still") + encode("a")) == (b": still\ndata: a\nid: s:1\n\n", [b"data: a"])
    assert numbering.held == 0


def test_a_part_of_an_event_goes_on_at_once_and_is_held_until_it_is_whole() -> None:
    numbering = Numbering("s")
    assert numbering.feed(b"data: abc") == (b"data: abc", [])
    assert numbering.held == 9
    assert numbering.feed(b"d\n") == (b"d\n", [])
    assert numbering.feed(b"\n") == (b"id: s:1\n\n", [b"data: abcd"])
    assert numbering.held == 0


def test_our_id_prevails_over_the_upstreams() -> None:
    out, _ = numbered([b"id: 7\ndata: a\n\n", b"data: b\nid: 8\n\n"])
    assert [event.id for event in decoded(out)] == ["s:1", "s:2"]


def test_sequence_numbers_are_told_from_any_event() -> None:
    assert difference(encode('{"sequence_number":4,"delta":"x"}'), 5) == 1
    assert difference(encode('{"sequence_number":4}', event="e"), 4) == 0
    for strange in (
        "[DONE]",
        "[" * 100_000,
        '{"sequence_number":true}',
        '{"sequence_number":-1}',
        "[4]",
        '{"a":"sequence_number"}',
    ):
        assert difference(encode(strange), 3) == WITHOUT_NUMBERS, strange[:30]
