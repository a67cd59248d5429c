"""The facts of a chat stream do not depend on how its bytes are cut; no bytes raise, and none are kept."""

from __future__ import annotations

import itertools
import json
import sys
import tracemalloc
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.protocol.chat import MAX_LOOKED_AT_BYTES, ChatFacts

# No verdict depends on how fast the machine is.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DONE = b"data: [DONE]\n\n"


def event(value: Any = None, spaced: bool = False, **more: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024"}
    value = {**head, **more} if value is None else value
    separators = (", ", ": ") if spaced else (",", ":")
    return b"data: " + json.dumps(value, separators=separators).encode() + b"\n\n"


def choice(finish_reason: str | None = None, **delta: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 2,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def answer(spaced: bool = False) -> bytes:
    return b"".join(
        [
            event(choices=choice(role="assistant", content=""), usage=None, spaced=spaced),
            event(choices=choice(content="Hel"), usage=None, spaced=spaced),
            event(choices=choice(content="lo"), usage=None, spaced=spaced),
            event(choices=choice("stop"), usage=None, spaced=spaced),
            event(choices=[], usage=USAGE, spaced=spaced),
            DONE,
        ]
    )


def feed(*chunks: bytes) -> ChatFacts:
    facts = ChatFacts()
    for chunk in chunks:
        facts.feed(chunk)
    return facts


def values(facts: ChatFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in ChatFacts.__slots__ if not name.startswith("_")}


EXPECTED = {
    "cache_write_tokens": 3,
    "cached_tokens": 4,
    "done": True,
    "finish_reasons": ("stop",),
    "input_tokens": 9,
    "malformed": 0,
    "model": "gpt-4o-mini-2024",
    "output_tokens": 2,
    "reasoning_tokens": 1,
    "response_id": "chatcmpl-1",
    "saw_content": True,
}


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("spaced", [False, True])
def test_facts_of_an_answer_whole_byte_by_byte_and_with_trailing_data(spaced: bool, line_end: bytes) -> None:
    data = answer(spaced).replace(b"\n", line_end)
    assert values(feed(data)) == EXPECTED
    assert values(feed(*(data[i : i + 1] for i in range(len(data))))) == EXPECTED
    assert values(feed(data + b"data: {")) == EXPECTED
    assert values(feed(data, event(choices=choice("length")))) == EXPECTED


def test_facts_are_known_as_they_come() -> None:
    facts = feed(event(choices=choice(role="assistant", content="")))
    assert (facts.response_id, facts.saw_content) == ("chatcmpl-1", False)
    facts.feed(event(choices=choice(content="x"))[:-1])
    assert not facts.saw_content
    facts.feed(b"\n")
    assert facts.saw_content
    assert not facts.done


@pytest.mark.parametrize(
    "delta",
    [
        {"content": '"'},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]},
    ],
)
def test_any_kind_of_token_is_content(delta: dict[str, Any]) -> None:
    assert feed(event(choices=choice(content="")), event(choices=choice(**delta))).saw_content


def test_content_cannot_pose_as_facts() -> None:
    text = 'data: [DONE]\n\n{"finish_reason":"stop","usage":{"prompt_tokens":1}} [DONE]'
    facts = feed(event(choices=choice(content=text)), event(choices=choice(content=text)))
    assert not facts.done
    assert facts.finish_reasons == ()
    assert facts.input_tokens is None


def test_a_first_event_without_an_id_is_not_the_last_one_looked_at() -> None:
    empty = event({"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    facts = feed(b": ping\n\n", empty, event(choices=choice(content="x")))
    assert (facts.response_id, facts.model) == ("chatcmpl-1", "gpt-4o-mini-2024")


def test_the_search_for_an_id_ends() -> None:
    facts = feed(*[event({"choices": []})] * 4, event(choices=choice(content="x")))
    assert facts.response_id is None
    assert facts.saw_content


def test_several_choices_have_a_finish_reason_each_but_not_without_end() -> None:
    facts = feed(event(choices=choice("stop")), event(choices=choice("length")))
    assert facts.finish_reasons == ("stop", "length")
    facts = feed(*[event(choices=choice("stop"))] * 100)
    assert facts.finish_reasons == ("stop",) * 16


@pytest.mark.parametrize(
    "data",
    [b'{"id":', b"[1]", b'"finish_reason":"', b"[" * 10_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff\xfe", b"null"],
)
def test_malformed_events_are_counted(data: bytes) -> None:
    facts = feed(b"data: " + data + b"\n\n", answer())
    assert values(facts) == {**EXPECTED, "malformed": 1}


@pytest.mark.parametrize(
    "value",
    [
        {"id": 1, "model": ["x"], "choices": {"finish_reason": "stop"}, "usage": [1]},
        {"choices": [None, 1, {"finish_reason": {"x": "y"}}], "usage": {"prompt_tokens": "9", "completion_tokens": -1}},
        {"choices": [{"finish_reason": "", "delta": None}], "usage": {"prompt_tokens": True, "completion_tokens": 1.5}},
    ],
)
def test_values_of_wrong_types_teach_nothing(value: dict[str, Any]) -> None:
    facts = feed(event(value))
    assert values(facts) == {**values(ChatFacts())}


def test_names_are_cut() -> None:
    facts = feed(event(id="i" * 9000, model="m" * 5000, choices=choice("f" * 1000)))
    assert (facts.response_id, facts.model, facts.finish_reasons) == ("i" * 256, "m" * 256, ("f" * 256,))


@pytest.mark.parametrize("extra", [-1, 0, 1, 2, 5000])
@pytest.mark.parametrize("chunk_bytes", [1, 1000, 10**6])
def test_an_event_that_is_too_large_is_not_looked_at(extra: int, chunk_bytes: int) -> None:
    event_bytes = MAX_LOOKED_AT_BYTES + extra
    finish = event(choices=choice("length"))
    large = finish[:-2] + b" " * (event_bytes - len(finish) + 2) + b"\n\n"
    # The blank line more before it is not part of it.
    data = event(choices=choice(role="assistant")) + b"\n" + large + event(choices=choice("stop")) + DONE
    facts = feed(*(data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes)))
    assert facts.finish_reasons == (("length", "stop") if extra <= 0 else ("stop",))
    assert facts.saw_content is (extra > 0)
    assert facts.done


def test_an_event_without_end_is_not_kept() -> None:
    facts = feed(event(choices=choice(role="assistant")), b"data: ")
    tracemalloc.start()
    try:
        for _ in range(10_000):
            facts.feed(b"x" * 1000)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * MAX_LOOKED_AT_BYTES
    assert peak < 4 * MAX_LOOKED_AT_BYTES
    facts.feed(b"\n\n" + DONE)
    assert facts.done


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_done_counts_without_its_blank_line_at_the_end(end: bytes) -> None:
    facts = feed(event(choices=choice("stop")), b"data: [DONE]" + end)
    assert not facts.done
    facts.eof()
    assert facts.done


def test_the_end_of_a_broken_stream_is_no_done() -> None:
    facts = feed(event(choices=choice(content="x")), b"data: [DO")
    facts.eof()
    assert not facts.done
    assert facts.malformed == 0


pieces = st.sampled_from(
    [
        event(choices=choice(role="assistant", content="")),
        event(choices=choice(content='"usage":{ [DONE]')),
        event(choices=choice("stop"), spaced=True),
        event(choices=[], usage=USAGE),
        event({"id": "", "choices": []}),
        b"data: {broken\n\n",
        b'data: "usage":{\n\n',
        b": ping\n\n",
        b"event: x\r\nid: 1\r\ndata: {}\r\n\r\n",
        b'data: {\ndata: "id":"two lines"}\n\n',
        b"\n",
        b"\r",
        b"data: " + b"y" * (MAX_LOOKED_AT_BYTES - 5) + b"\n\n",
        DONE,
    ]
)


@unhurried
@given(st.lists(pieces, max_size=12).map(b"".join), st.lists(st.integers(0, 40_000), max_size=12))
def test_facts_do_not_depend_on_the_cuts(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    facts = feed(*(data[a:b] for a, b in itertools.pairwise(edges)))
    assert values(facts) == values(feed(data))


@pytest.mark.parametrize("tail", [event(choices=choice("stop")) + DONE, event(choices=[], usage=USAGE) + DONE, b""])
def test_events_without_facts_take_no_calls_however_many_come_at_once(tail: bytes) -> None:
    def calls(tokens: int) -> int:
        facts, count = ChatFacts(), 0

        def note(frame: FrameType, what: str, _: object) -> None:
            nonlocal count
            count += what in ("call", "c_call")

        chunk = event(choices=choice(content="first")) + tokens * event(choices=choice(content="token")) + tail
        sys.setprofile(note)
        try:
            facts.feed(chunk)
        finally:
            sys.setprofile(None)
        assert facts.saw_content
        assert facts.done is tail.endswith(DONE)
        return count

    assert calls(100) == calls(1)
