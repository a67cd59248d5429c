"""Failures as a client sees them: a status before the first byte, an event after it, never a silent end."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import openai
import pytest

Served = Any
Start = Any


def last_error(events: list[str]) -> dict[str, Any]:
    assert "[DONE]" not in events
    return dict(json.loads(events[-1])["error"])


@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("500", 500)])
def test_an_upstream_that_refuses_is_quoted_after_the_retries(relay: Served, fault: str, status: int) -> None:
    before = relay.stats()["requests"]
    answer = relay.chat(f"sim:fault={fault}")
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert "sim:fault=" in answer.error["message"]
    assert relay.stats()["requests"] - before >= 3  # one, and two retries
    if status == 429:
        assert answer.headers["retry-after"] == "1"


def test_a_retry_that_succeeds_is_no_failure(relay: Served) -> None:
    answer = relay.chat("sim:events=2,pace=0,fault=500x1,seed=99")
    assert answer.status == 200
    assert answer.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("disconnect@3", "upstream_unreachable"),
        ("stall@3", "upstream_timeout"),
        ("endless@3", "upstream_protocol"),
    ],
)
def test_a_failure_in_the_stream_is_its_last_event(relay: Served, fault: str, code: str) -> None:
    answer = relay.chat(f"sim:pace=0,size=64000,fault={fault}")
    assert answer.status == 200
    assert len([event for event in answer.events if "chat.completion.chunk" in event]) == 3
    assert last_error(answer.events)["code"] == code


def test_the_official_client_raises_for_a_failure_in_the_stream(relay: Served) -> None:
    with (
        openai.OpenAI(base_url=relay.url + "/v1", api_key="any", max_retries=0) as client,
        client.chat.completions.create(model="sim:pace=0,fault=disconnect@3", messages=[], stream=True) as stream,
        pytest.raises(openai.APIError, match="the upstream broke the connection off"),
    ):
        list(stream)


def test_a_malformed_event_is_the_clients_to_judge(relay: Served) -> None:
    answer = relay.chat("sim:events=4,pace=0,fault=malformed@2")
    assert "this line is no field" in answer.body.decode()
    assert answer.events[-1] == "[DONE]"


def test_a_silent_upstream_is_a_gateway_timeout(start: Start) -> None:
    relay = start(
        "--no-diagnostics", "--read-timeout-seconds", "0.3", "--response-timeout-seconds", "0.3", "--upstream-retries", "0",
        announced=2,
    )  # fmt: skip
    for stream in (True, False):
        answer = relay.chat("sim:first=30", stream=stream)
        assert answer.status == 504
        assert answer.error["code"] == "upstream_timeout"


def test_an_upstream_that_is_not_there_is_a_bad_gateway(start: Start, free_port: int) -> None:
    relay = start(
        "--no-diagnostics",
        "--upstream-base-url",
        f"http://127.0.0.1:{free_port}/v1",
        "--upstream-retries",
        "0",
        announced=2,
    )
    for stream in (True, False):
        answer = relay.chat("any", stream=stream)
        assert answer.status == 502
        assert answer.error["code"] == "upstream_unreachable"
    assert relay.get("/v1/models").status == 502
    assert relay.get("/healthz").status == 200
    assert str(free_port) not in answer.body.decode()  # where the upstream is, is nobody's business


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe\x00", None),
        (b"[" * 100_000, None),
        (b'{"messages": []}', "model"),
        (b'{"model": 7, "messages": []}', "model"),
        (b'{"model": "m", "messages": "hi"}', "messages"),
        (b'{"model": "m", "messages": [], "stream": "yes"}', "stream"),
    ],
)
def test_a_request_that_is_none_is_refused_in_openais_shape(relay: Served, body: bytes, param: str | None) -> None:
    answer = relay.ask("POST", "/v1/chat/completions", body, {})
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/stream", 405), ("GET", "/stream", 422)]
)
def test_other_refusals_have_the_same_shape(relay: Served, method: str, path: str, status: int) -> None:
    answer = relay.ask(method, path, None, {})
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_refused(relay: Served) -> None:
    assert relay.chat("m", padding="x" * 300_000).status == 413
    with socket.create_connection(relay.address) as connection:  # without saying its size before
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 413 ")


def test_what_failed_is_logged_once_without_the_prompt(relay: Served, eventually: Callable[..., Any]) -> None:
    def lines() -> list[dict[str, Any]]:
        return list(relay.endings(outcome="upstream_error", route="/stream"))

    before = len(lines())
    relay.get("/stream?prompt=a-secret-prompt&model=sim:pace=0,fault=disconnect@1")
    # The client has its whole answer before the relay writes its log.
    eventually(lambda: len(lines()) == before + 1)
    assert "a-secret-prompt" not in relay.log()
