"""Completions and responses through the relay: with the official client, to their own ends, and with their own faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

Served = Any  # the fixtures are typed in conftest.py
Eventually = Callable[[Callable[[], bool]], None]

ASKED = {"/v1/completions": "prompt", "/v1/responses": "input"}
paths = pytest.mark.parametrize("path", list(ASKED))


@pytest.fixture
def client(relay: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=relay.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


def ask(relay: Served, path: str, model: str, **more: Any) -> Any:
    body = {"model": model, ASKED[path]: "hi", "stream": True, **more}
    return relay.ask("POST", path, json.dumps(body).encode(), {})


def test_the_official_client_reads_completions(client: openai.OpenAI) -> None:
    model = "sim:events=5,pace=0"
    with client.completions.create(model=model, prompt="hi", stream=True) as stream:
        chunks = list(stream)
    whole = client.completions.create(model=model, prompt="hi")
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text != ""
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert whole.usage
    assert whole.usage.completion_tokens == 5


def test_the_official_client_reads_responses(client: openai.OpenAI) -> None:
    model = "sim:events=5,pace=0"
    with client.responses.create(model=model, input="hi", stream=True) as stream:
        events = list(stream)
    whole = client.responses.create(model=model, input="hi")
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert whole.usage
    assert whole.usage.output_tokens == 5


def test_a_responses_stream_ends_at_its_own_marker_and_is_no_error(relay: Served) -> None:
    answer = ask(relay, "/v1/responses", "sim:events=400,size=500,pace=0")  # its last event has 200 kB
    assert answer.status == 200
    assert json.loads(answer.events[-1])["type"] == "response.completed"
    assert b"[DONE]" not in answer.body


@paths
def test_a_stream_that_breaks_off_ends_with_an_error(relay: Served, path: str) -> None:
    answer = ask(relay, path, "sim:events=9,pace=0,fault=disconnect@6")
    assert json.loads(answer.events[-1])["error"]["code"] == "upstream_unreachable"
    with (
        openai.OpenAI(base_url=relay.url + "/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.APIError, match="broke the connection off"),
    ):
        list(client.responses.create(model="sim:events=9,pace=0,fault=disconnect@6", input="hi", stream=True))


@paths
def test_an_upstreams_refusal_is_handed_on(relay: Served, path: str) -> None:
    for stream in (True, False):
        answer = ask(relay, path, "sim:fault=429", stream=stream)
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": "hi"}, "model"),
        ("/v1/completions", {"model": "", "prompt": "hi"}, "model"),
        ("/v1/responses", {"model": 5}, "model"),
        ("/v1/responses", {"stream": "yes"}, "stream"),
    ],
)
def test_what_the_relay_must_know_is_checked(relay: Served, path: str, body: dict[str, Any], param: str) -> None:
    answer = relay.ask("POST", path, json.dumps(body).encode(), {})
    assert answer.status == 400
    assert answer.error["param"] == param


def test_a_response_without_a_model_is_the_upstreams_to_judge(relay: Served) -> None:
    answer = relay.ask("POST", "/v1/responses", b'{"prompt":{"id":"stored"},"stream":true}', {})
    assert answer.status == 400
    assert "model is missing, it must be" in answer.error["message"]  # the simulator's words


@paths
def test_a_client_that_leaves_closes_the_upstream(relay: Served, eventually: Eventually, path: str) -> None:
    with openai.OpenAI(base_url=relay.url + "/v1", api_key="any", max_retries=0) as client:
        make: Any = client.completions.create if path == "/v1/completions" else client.responses.create
        with make(model="sim:events=inf", stream=True, **{ASKED[path]: "hi"}) as stream:
            next(iter(stream))
            assert relay.stats()["open"] == 1
    eventually(lambda: relay.stats()["open"] == 0)


def test_a_degraded_answer_is_for_chats_only(start: Callable[..., Served]) -> None:
    relay = start("--no-diagnostics", "--upstream-retries", "0", "--degraded-message", "sorry", announced=2)
    assert relay.chat("sim:fault=500").status == 200
    for path in ASKED:
        for stream in (True, False):
            answer = ask(relay, path, "sim:fault=500", stream=stream)
            assert (answer.status, "x-relay-degraded" in answer.headers) == (500, False)
