"""Streams as a client sees them: every event at once, and the upstream closed when the client leaves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

Served = Any  # the fixtures are typed in conftest.py
Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture
def client(relay: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=relay.url + "/v1", api_key="any", max_retries=0)


def test_the_official_client_reads_the_stream_and_its_usage(client: openai.OpenAI) -> None:
    with (
        client,
        client.chat.completions.create(
            model="sim:events=5,pace=0",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        ) as stream,
    ):
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_the_official_client_reads_an_answer_that_does_not_stream(client: openai.OpenAI) -> None:
    with client:
        answer = client.chat.completions.create(model="sim:events=5", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content
        assert [model.id for model in client.models.list()]


def test_a_stream_has_the_headers_that_keep_proxies_from_holding_it_back(relay: Served) -> None:
    answer = relay.chat("sim:events=3,pace=0")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert not {"content-length", "content-encoding"} & set(answer.headers)
    assert answer.events[-1] == "[DONE]"


def test_the_bytes_are_the_upstreams_own(relay: Served) -> None:
    model = "sim:events=40,size=3000,pace=0,seed=4"
    answers = [relay.chat(model).body, relay.chat(model).body]
    # Each answer has an id of its own; the rest is the same bytes for the same name.
    anonymous = {re.sub(rb'"id":"[^"]*"', b"", body) for body in answers}
    assert len(anonymous) == 1
    assert len(answers[0]) > 40 * 3000


def test_a_browser_can_get_the_same_stream(relay: Served) -> None:
    answer = relay.get("/stream?prompt=hi&model=sim:events=2,pace=0")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.events[-1] == "[DONE]"


def test_events_arrive_one_by_one(relay: Served) -> None:
    with relay.open("sim:events=6,pace=4,first=0") as connection:
        arrivals = []
        received = b""
        while b"[DONE]" not in received:
            chunk = connection.recv(65536)
            assert chunk
            received += chunk
            if b"data: " in chunk:
                arrivals.append(time.monotonic())
    # A buffering relay has one arrival; this one has the upstream's, less what the scheduler joins.
    assert len(arrivals) >= 3
    assert arrivals[-1] - arrivals[0] > 0.5


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("sim:events=inf,pace=50", id="while it streams"),
        pytest.param("sim:first=60", id="before its first byte"),
        pytest.param("sim:events=inf,pace=0,size=4000", id="while the client does not read"),
    ],
)
def test_a_client_that_leaves_closes_the_upstream(relay: Served, eventually: Eventually, model: str) -> None:
    eventually(lambda: relay.stats()["open"] == 0)
    before = relay.stats()["started"]
    with relay.open(model) as connection:
        eventually(lambda: relay.stats()["started"] == before + 1)
        if "first" not in model:
            assert connection.recv(10)
        time.sleep(0.2)
        assert relay.stats()["open"] == 1
    eventually(lambda: relay.stats()["open"] == 0)


def test_a_client_that_does_not_read_stops_its_upstream(relay: Served, eventually: Eventually) -> None:
    with relay.open("sim:events=inf,pace=0,size=4000"):
        sent: list[int] = []

        def stands_still() -> bool:
            sent.append(relay.stats()["bytes_sent"])
            time.sleep(0.15)
            return len(sent) > 3 and len(set(sent[-3:])) == 1

        before = relay.stats()["bytes_sent"]
        eventually(stands_still)
        # Kernel buffers of three sockets and the two processes' own; far from without end.
        assert sent[-1] - before < 8 * 1024 * 1024
    eventually(lambda: relay.stats()["open"] == 0)


def test_an_upstream_connection_is_used_again(relay: Served) -> None:
    relay.chat("sim:events=2,pace=0")
    before = relay.stats()
    for _ in range(5):
        relay.chat("sim:events=2,pace=0")
    after = relay.stats()
    assert after["finished"] - before["finished"] == 5
    # One connection for the question itself, none for the streams.
    assert after["connections"] - before["connections"] <= 1


def test_unknown_fields_reach_the_upstream(relay: Served) -> None:
    # The simulator refuses stream_options without stream: it has seen a field that the relay does not read.
    answer = relay.chat("sim:", stream=False, stream_options={"include_usage": True}, field_of_tomorrow=[1])
    assert answer.status == 400
    assert "stream_options" in answer.error["message"]


def test_a_request_that_comes_before_the_one_before_has_ended_is_answered_after_it(relay: Served) -> None:
    """HTTP/1.1 lets a client send the next request at any time (RFC 9112, 9.3.2)."""
    with relay.open("sim:events=30,pace=100") as connection:
        first = connection.recv(64)
        for stream in (False, True):
            body = json.dumps({"model": "sim:events=3,pace=0", "messages": [], "stream": stream}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(head.encode() + (b"Connection: close\r\n\r\n" if stream else b"\r\n") + body)
        answers = first + b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200") == 3
    streamed, whole, last = answers.split(b"HTTP/1.1 200")[1:]
    assert streamed.count(b"data: ") >= 30
    assert streamed.rstrip().endswith(b"0")
    assert b"[DONE]" in streamed
    assert b"application/json" in whole
    assert b"chat.completion" in whole
    assert b"[DONE]" in last
