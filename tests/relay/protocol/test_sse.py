"""Reading Server-Sent Events: the standard's rules, however the bytes are cut, within the limits."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.protocol.sse import Event, EventDecoder, EventScanner, EventTooLargeError, comment, encode

# No verdict depends on how fast the machine is.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

BOM = b"\xef\xbb\xbf"


def message(data: str, event_id: str = "") -> Event:
    return Event("message", data, event_id)


# name -> (bytes, the events in them)
CASES: dict[str, tuple[bytes, list[Event]]] = {
    "one line": (b"data: a\n\n", [message("a")]),
    "two lines are joined": (b"data: a\ndata: b\n\n", [message("a\nb")]),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\n", [message("a\nb")]),
    "CR": (b"data: a\rdata: b\r\r", [message("a\nb")]),
    "all line ends in one event": (b"data: a\rdata: b\r\ndata: c\n\r\n", [message("a\nb\nc")]),
    "LF CR is two line ends": (b"data: a\n\rdata: b\n\n", [message("a"), message("b")]),
    "byte order mark": (BOM + b"data: a\n\n", [message("a")]),
    "only one byte order mark": (BOM + BOM + b"data: a\n\n", []),
    "byte order mark later": (b"data: a\n\n" + BOM + b"data: b\n\n", [message("a")]),
    "broken byte order mark": (BOM[:2] + b"data: a\n\ndata: b\n\n", [message("b")]),
    "byte order mark in data": (b"data: " + BOM + b"\n\n", [message("\ufeff")]),
    "comments": (b": hello\n\n:\ndata: a\n: between\ndata: b\n\n", [message("a\nb")]),
    "one space is stripped": (b"data:a\n\ndata:  a\n\ndata:\ta\n\n", [message("a"), message(" a"), message("\ta")]),
    "field without colon": (b"data\n\ndata\ndata\n\n", [message(""), message("\n")]),
    "empty data": (b"data:\n\n", [message("")]),
    "no data, no event": (b"event: x\nid: 1\n\ndata: a\n\n", [message("a", "1")]),
    "type": (b"event: delta\ndata: a\n\ndata: b\n\n", [Event("delta", "a"), message("b")]),
    "empty type is message": (b"event:\ndata: a\n\n", [message("a")]),
    "last type counts": (b"event: x\nevent: y\ndata: a\n\n", [Event("y", "a")]),
    "id stays": (b"id: 7\ndata: a\n\ndata: b\n\n", [message("a", "7"), message("b", "7")]),
    "id is reset": (b"id: 7\ndata: a\n\nid\ndata: b\n\n", [message("a", "7"), message("b")]),
    "id with NUL is ignored": (b"id: 7\nid: 8\x009\ndata: a\n\n", [message("a", "7")]),
    "unknown fields": (b"datas: x\nDATA: y\n data: z\ndata: a\n\n", [message("a")]),
    "colon in value": (b'data: {"a": 1}\n\n', [message('{"a": 1}')]),
    "line separators of Unicode are not line ends": (
        "data: a\u2028b\u2029c\u0085d\x0b\x0c\n\n".encode(),
        [message("a\u2028b\u2029c\u0085d\x0b\x0c")],
    ),
    "invalid UTF-8": (b"data: \xff\xe2\x82\n\n", [message("\ufffd\ufffd")]),
    "many blank lines": (b"\n\n\ndata: a\n\n\n\n\r\n\rdata: b\n\n", [message("a"), message("b")]),
    "unterminated": (b"data: a\n\ndata: b\n", [message("a")]),
    "nothing": (b"", []),
}


def decode(chunks: Iterable[bytes]) -> list[Event]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def feed_all(reader: EventDecoder | EventScanner, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        reader.feed(chunk)


def one_by_one(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize(("data", "events"), CASES.values(), ids=CASES)
def test_decodes_whole(data: bytes, events: list[Event]) -> None:
    assert decode([data]) == events


@pytest.mark.parametrize(("data", "events"), CASES.values(), ids=CASES)
def test_decodes_byte_by_byte(data: bytes, events: list[Event]) -> None:
    assert decode(one_by_one(data)) == events


@pytest.mark.parametrize(("data", "events"), CASES.values(), ids=CASES)
def test_decodes_with_trailing_data(data: bytes, events: list[Event]) -> None:
    trailing = b"data: unfini"
    assert decode([data + trailing]) == events
    assert decode([data, trailing]) == events


@pytest.mark.parametrize(
    ("field", "retry"),
    [
        (b"retry: 1500", 1500),
        (b"retry:0", 0),
        (b"retry", None),
        (b"retry:", None),
        (b"retry: 1.5", None),
        (b"retry: -1", None),
        (b"retry: +1", None),
        (b"retry:  1", None),
        ("retry: ٣".encode(), None),
        (b"retry: " + b"9" * 5000, None),
    ],
)
def test_reconnection_time_takes_ascii_digits_only(field: bytes, retry: int | None) -> None:
    decoder = EventDecoder()
    decoder.feed(field + b"\n")
    assert decoder.retry == retry


def test_last_event_id_is_that_of_the_last_complete_event() -> None:
    decoder = EventDecoder(last_event_id="0")
    assert decoder.feed(b"data: a\n\nid: 1\ndata: b\n\nid: 2\n\nid: 3\ndata: c\n") == [
        message("a", "0"),
        message("b", "1"),
    ]
    assert decoder.last_event_id == "2"
    decoder.eof()
    assert decoder.feed(b"data: d\n\n") == [message("d", "2")]


def test_end_discards_the_unterminated_event_and_begins_anew() -> None:
    decoder = EventDecoder()
    decoder.feed(b"retry: 5\n\nevent: x\ndata: lost")
    assert decoder.eof() == len(b"event: x\ndata: lost")
    assert decoder.feed(BOM + b"data: a\n\n") == [message("a")]
    assert decoder.retry == 5
    assert decoder.eof() == 0


# limits


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
def test_a_line_may_have_its_limit_and_no_byte_more(chunk_bytes: int) -> None:
    def feed(data: bytes) -> list[Event]:
        decoder = EventDecoder(max_line_bytes=100)
        chunks = (data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes))
        return [event for chunk in chunks for event in decoder.feed(chunk)]

    assert feed(b"data:" + b"x" * 95 + b"\n\n") == [message("x" * 95)]
    with pytest.raises(EventTooLargeError, match=r"an SSE line has \d+ bytes or more, the limit is 100"):
        feed(b"data:" + b"x" * 96)


@pytest.mark.parametrize("split", [False, True])
def test_an_event_may_have_its_limit_and_no_byte_more(split: bool) -> None:
    def feed(data: bytes) -> int:
        decoder, scanner = EventDecoder(max_event_bytes=100), EventScanner(max_event_bytes=100)
        total = 0
        for chunk in one_by_one(data) if split else [data]:
            events, counted = decoder.feed(chunk), scanner.feed(chunk)
            assert len(events) == counted
            total += counted
        return total

    assert feed((b"data:1234\r\n" * 10 + b"\r\n") * 3) == 3  # a CRLF counts as one byte
    for reader in (EventDecoder(max_event_bytes=100), EventScanner(max_event_bytes=100)):
        data = b"data:1234\n" * 10 + b":"
        with pytest.raises(EventTooLargeError) as caught:
            feed_all(reader, one_by_one(data) if split else [data])
        assert (caught.value.part, caught.value.size, caught.value.limit) == ("event", 101, 100)


def test_a_terminated_event_beyond_the_limit_is_refused_too() -> None:
    data = b"data: small\n\ndata: " + b"x" * 100 + b"\n\ndata: small\n\n"
    with pytest.raises(EventTooLargeError):
        EventScanner(max_event_bytes=50).feed(data)
    with pytest.raises(EventTooLargeError) as caught:
        EventDecoder(max_event_bytes=50).feed(data)
    assert caught.value.events == (message("small"),)


def test_the_decoder_stays_refused_until_the_end() -> None:
    decoder = EventDecoder(max_line_bytes=8)
    for data in (b"data: too long", b"\n\ndata: a\n\n"):
        with pytest.raises(EventTooLargeError):
            decoder.feed(data)
    decoder.eof()
    assert decoder.feed(b"data: a\n\n") == [message("a")]


def test_the_scanner_does_not_take_in_what_it_refuses() -> None:
    scanner = EventScanner(max_event_bytes=50)
    assert scanner.feed(b"data: a\r\n\r") == 1
    assert scanner.at_boundary
    with pytest.raises(EventTooLargeError):
        scanner.feed(b"\ndata: " + b"x" * 50)
    assert scanner.at_boundary
    assert scanner.feed(b"\ndata: b\r\r") == 1


@pytest.mark.parametrize("pattern", [b"x", b"data: x\n", b"data:\r\n", b"\xef\xbb"])
def test_what_a_sender_never_ends_takes_no_more_memory_than_the_limits(pattern: bytes) -> None:
    limit = 256 * 1024
    decoder = EventDecoder(max_line_bytes=limit, max_event_bytes=limit)
    chunk = pattern * 512
    tracemalloc.start()
    try:
        with pytest.raises(EventTooLargeError):
            feed_all(decoder, itertools.repeat(chunk, limit))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * limit + 16 * len(chunk)


def test_many_small_chunks_take_time_in_proportion() -> None:
    # Half a second. If each chunk copied what is there already, it would be a terabyte, and never end.
    decoder = EventDecoder(max_line_bytes=10**8, max_event_bytes=10**8)
    for _ in range(500_000):
        decoder.feed(b"data:xxx")
    assert decoder.eof() == 4_000_000


# the scanner

fragments = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"data: x", b":", b"a", BOM, b"\xef", b"\xef\xbb", b"\0"])
streams = st.lists(fragments, max_size=40).map(b"".join) | st.binary(max_size=60)


def blocks(data: bytes) -> tuple[int, bool]:
    """A naive reading: how many blocks are complete, and whether the bytes end between two of them."""
    held = data if data in (BOM[:1], BOM[:2]) else b""
    text = data.removeprefix(BOM)
    lines = re.split(rb"\r\n|\r|\n", text)
    count = 0
    content = False
    for line in lines[:-1]:
        if line:
            content = True
        else:
            count += content
            content = False
    return count, not content and not lines[-1] and not held


@unhurried
@given(streams, st.lists(st.integers(0, 200), max_size=12))
@example(b"a\r", [])
@example(b"a\n\n\n\nb\n\n", [3])
@example(b"\r\n\r\n\n" + BOM + b"\r\r\n\n", [1, 2])
def test_the_scanner_counts_blocks_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    scanner = EventScanner()
    seen = b""
    total = 0
    for chunk in cut(data, cuts):
        total += scanner.feed(chunk)
        seen += chunk
        assert (total, scanner.at_boundary) == blocks(seen)


@unhurried
@given(streams, st.lists(st.integers(0, 200), max_size=12))
def test_the_decoder_gives_the_same_events_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    assert decode(cut(data, cuts)) == decode([data]) == decode(one_by_one(data))


@unhurried
@given(streams, st.lists(st.integers(0, 200), max_size=12), st.integers(1, 30))
def test_scanner_and_decoder_refuse_the_same_streams(data: bytes, cuts: list[int], limit: int) -> None:
    def refused(reader: EventDecoder | EventScanner, chunks: Iterable[bytes]) -> bool:
        try:
            feed_all(reader, chunks)
        except EventTooLargeError:
            return True
        return False

    decoder = EventDecoder(max_event_bytes=limit)
    whole = refused(EventScanner(max_event_bytes=limit), [data])
    assert refused(EventScanner(max_event_bytes=limit), cut(data, cuts)) is whole
    assert refused(decoder, cut(data, cuts)) is whole


@unhurried
@given(streams)
def test_an_injected_event_arrives_whole(data: bytes) -> None:
    scanner = EventScanner()
    scanner.feed(data)
    injected = encode("injected", event="error")
    events = decode([data + (b"" if scanner.at_boundary else b"\n\n") + injected])
    assert (events[-1].event, events[-1].data) == ("error", "injected")


# the encoder

texts = st.text(st.characters(codec="utf-8"), max_size=30)
single_lines = texts.filter(lambda text: not re.search("[\r\n\0]", text))


@unhurried
@given(texts, st.none() | single_lines, st.none() | single_lines, st.none() | st.integers(0, 10**12))
def test_what_is_encoded_decodes_again(data: str, event: str | None, name: str | None, retry: int | None) -> None:
    decoder = EventDecoder()
    (decoded,) = decoder.feed(encode(data, event=event, id=name, retry=retry))
    assert decoded == Event(event or "message", re.sub("\r\n|\r", "\n", data), name or "")
    assert decoder.retry == retry


def test_encodes_bytes_as_they_are() -> None:
    assert encode(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert encode(b"\xff\r\n") == b"data: \xff\ndata: \n\n"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_a_line_end_in_a_field_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="event is 'a"):
        encode("x", event=text)
    with pytest.raises(ValueError, match="id is 'a"):
        encode("x", id=text)


def test_a_negative_reconnection_time_is_refused() -> None:
    with pytest.raises(ValueError, match="retry is -1"):
        encode("x", retry=-1)


def test_a_comment_is_no_event_whatever_is_in_it() -> None:
    assert comment() == b": \n\n"
    assert decode([comment("a\ndata: b\r\ndata: c") + encode("d")]) == [message("d")]
