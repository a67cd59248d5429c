"""Which answers are retried, and after which pause: the rules of OpenAI's clients."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.upstream.retry import LONGEST_SERVER_PAUSE_SECONDS, pause_seconds, server_pause_seconds, worth_retrying

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "headers", "again"),
    [
        (400, {}, False),
        (401, {}, False),
        (404, {}, False),
        (408, {}, True),
        (409, {}, True),
        (429, {}, True),
        (500, {}, True),
        (503, {}, True),
        (500, {"x-should-retry": "false"}, False),
        (400, {"x-should-retry": "true"}, True),
        (400, {"x-should-retry": "perhaps"}, False),
        (429, {"retry-after": "120"}, True),
        (429, {"retry-after": "121"}, False),
        (429, {"retry-after": "inf"}, False),
        (429, {"retry-after": "121", "x-should-retry": "true"}, False),
        (503, {"retry-after": formatdate(NOW + 3600)}, False),
    ],
)
def test_a_refusal_is_tried_again_where_it_may_be_gone(status: int, headers: dict[str, str], again: bool) -> None:
    assert worth_retrying(status, headers, NOW) is again


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "next week"}, None),
    ],
)
def test_what_the_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert server_pause_seconds(headers, NOW) == seconds


def test_pauses_grow_to_a_limit() -> None:
    assert [pause_seconds(tried, {}, NOW, 0.0) for tried in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert pause_seconds(0, {}, NOW, 1.0) == 0.375


@given(
    st.integers(0, 10_000),
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=12)),
    st.floats(0, 1),
)
def test_whatever_a_server_says_the_pause_is_bounded(tried: int, headers: dict[str, str], chance: float) -> None:
    assert 0 < pause_seconds(tried, headers, NOW, chance) <= LONGEST_SERVER_PAUSE_SECONDS
