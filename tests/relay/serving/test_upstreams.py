"""Upstreams that are down: fallbacks, circuit breakers, and a degraded answer that is marked as one."""

from __future__ import annotations

from typing import Any

Start = Any


def test_the_fallback_answers_and_the_breaker_spares_the_dead(start: Start, free_port: int) -> None:
    live = start("--no-diagnostics", announced=2)
    relay = start(
        "--no-diagnostics", "--upstream-base-url", f"http://127.0.0.1:{free_port}/v1", "--upstream-retries", "0",
        "--fallback-base-urls", live.upstream, "--breaker-failures", "2", "--breaker-open-seconds", "600",
        announced=2,
    )  # fmt: skip
    assert relay.get("/readyz").body == b'{"status":"ready","upstreams":["closed","closed"],"hub":"memory"}'
    for stream in (True, False, True):
        answer = relay.chat("sim:events=2,pace=0", stream=stream)
        assert answer.status == 200
        assert "x-relay-degraded" not in answer.headers
    assert relay.get("/readyz").body == b'{"status":"ready","upstreams":["open","closed"],"hub":"memory"}'


def test_a_refusal_is_no_outage(start: Start) -> None:
    relay = start(
        "--no-diagnostics", "--upstream-retries", "0", "--breaker-failures", "1", "--degraded-message", "sorry",
        announced=2,
    )  # fmt: skip
    assert relay.chat("sim:fault=429").status == 429
    assert relay.get("/readyz").body == b'{"status":"ready","upstreams":["closed"],"hub":"memory"}'


def test_when_all_are_down_the_answer_is_degraded_and_counted_as_a_failure(start: Start) -> None:
    relay = start(
        "--no-diagnostics", "--upstream-retries", "0", "--breaker-failures", "1", "--degraded-message", "Back soon.",
        "--breaker-open-seconds", "600", announced=2,
    )  # fmt: skip
    for _ in range(2):  # refused by the upstream, then by the breaker
        answer = relay.chat("sim:fault=500")
        assert (answer.status, answer.headers["x-relay-degraded"]) == (200, "1")
        assert answer.events[-1] == "[DONE]"
        assert '"content":"Back soon."' in answer.events[1]
    whole = relay.chat("sim:fault=500", stream=False)
    assert whole.headers["x-relay-degraded"] == "1"
    assert b'"content":"Back soon."' in whole.body
    assert relay.stats()["requests"] == 1 + 1  # the second question is this one
    assert len(relay.endings(outcome="upstream_error")) == 2


def test_without_a_degraded_answer_it_is_an_error_that_says_when(start: Start) -> None:
    relay = start(
        "--no-diagnostics", "--upstream-retries", "0", "--breaker-failures", "1", "--breaker-open-seconds", "600",
        announced=2,
    )  # fmt: skip
    assert relay.chat("sim:fault=500").status == 500
    answer = relay.chat("sim:events=1")
    assert answer.status == 503
    assert answer.error["code"] == "upstream_unavailable"
    assert 1 <= int(answer.headers["retry-after"]) <= 600
