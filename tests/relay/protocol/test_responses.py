"""The facts of a Responses stream do not depend on how its bytes are cut, and its end is seen whatever its size."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocol.facts import answer_facts
from relay.protocol.responses import MAX_HEAD_BYTES, MAX_TAIL_BYTES, ResponseFacts

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cache_write_tokens": 3, "cached_tokens": 4},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 11,
}


def event(name: str, named: bool = True, **more: Any) -> bytes:
    line = f"event: {name}\n" if named else ""
    return f"{line}data: {json.dumps({'type': name, **more})}\n\n".encode()


def answer(last: str = "completed", named: bool = True, text: str = "Hello", **more: Any) -> bytes:
    begun = {"id": "resp_1", "object": "response", "model": "gpt-1", "usage": None}
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    ended = {**begun, "output": output, "usage": USAGE, "metadata": {}, **more}
    return b"".join(
        [
            event("response.created", named, response=begun),
            event("response.output_text.delta", named, delta='event: response.failed\n\n"usage": {"input_tokens": 5'),
            event(f"response.{last}", named, response=ended),
        ]
    )


def feed(*chunks: bytes) -> ResponseFacts:
    facts = ResponseFacts()
    for chunk in chunks:
        facts.feed(chunk)
    return facts


def values(facts: ResponseFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in ResponseFacts.__slots__ if not name.startswith("_")}


EXPECTED = {
    "cache_write_tokens": 3,
    "cached_tokens": 4,
    "done": True,
    "failed": False,
    "finish_reasons": ("completed",),
    "input_tokens": 9,
    "model": "gpt-1",
    "output_tokens": 2,
    "reasoning_tokens": 1,
    "response_id": "resp_1",
}


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("size", [5, 3 * MAX_HEAD_BYTES], ids=["small", "large"])
def test_facts_whole_byte_by_byte_and_with_trailing_data(size: int, named: bool, line_end: bytes) -> None:
    data = answer(named=named, text="x" * size).replace(b"\n", line_end)
    assert values(feed(data)) == EXPECTED
    assert values(feed(*(data[i : i + 1] for i in range(len(data))))) == EXPECTED
    assert values(feed(data + b"data: {")) == EXPECTED


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=12))
def test_facts_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    data = answer()
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    assert values(feed(*(data[a:b] for a, b in itertools.pairwise(edges)))) == EXPECTED


def test_it_is_not_done_before_the_last_event_has_ended() -> None:
    data = answer()
    facts = feed(data[:-1])
    assert not facts.done
    facts.eof()
    assert facts.done


@pytest.mark.parametrize("size", [5, 3 * MAX_HEAD_BYTES])
def test_an_incomplete_response_says_why_and_a_failed_one_that_it_failed(size: int) -> None:
    facts = feed(answer("incomplete", incomplete_details={"reason": "max_output_tokens"}, text="x" * size))
    assert (facts.done, facts.failed, facts.finish_reasons) == (True, False, ("max_output_tokens",))
    facts = feed(answer("failed", error={"code": "server_error"}, text="x" * size))
    assert (facts.done, facts.failed, facts.finish_reasons) == (True, True, ("failed",))


def test_a_large_event_keeps_no_more_than_its_ends() -> None:
    facts = feed(b"data: ", *[b"x" * 1000] * 1000)
    assert len(facts._head) + len(facts._tail) <= MAX_HEAD_BYTES + MAX_TAIL_BYTES


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_nothing_in_a_stream_raises(chunks: list[bytes]) -> None:
    facts = feed(b"event: response.completed\n", *chunks, b"\n\n")
    facts.eof()
    assert len(facts._head) + len(facts._tail) <= MAX_HEAD_BYTES + MAX_TAIL_BYTES


def test_the_facts_of_whole_answers() -> None:
    chat = answer_facts(b'{"id":"c","model":"m","choices":[{"finish_reason":"stop"}],"usage":{"completion_tokens":2}}')
    assert (chat.response_id, chat.finish_reasons, chat.output_tokens) == ("c", ("stop",), 2)
    made = json.dumps({"id": "r", "model": "m", "status": "completed", "usage": USAGE}).encode()
    facts = answer_facts(made)
    assert (facts.finish_reasons, facts.input_tokens, facts.output_tokens) == (("completed",), 9, 2)
    for odd in (b"", b"[]", b'{"usage":1,"choices":{},"id":7}', b"[" * 100_000, b'{"id":"x"}' + b" " * 1_000_000):
        assert answer_facts(odd).response_id is None
