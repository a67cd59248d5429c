"""Refused requests get a status and a Retry-After, and are counted by reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

Served = Any
Start = Any
Eventually = Callable[[Callable[[], bool]], None]


@pytest.mark.parametrize(
    ("flags", "room", "status", "code"),
    [
        (["--max-streams", "2"], 2, 503, "overloaded"),
        (["--budget-bytes", "700000"], 2, 503, "overloaded"),  # 2.67 streams of 256 KiB
        (["--key-max-streams", "1"], 1, 429, "rate_limit_exceeded"),
    ],
)
def test_a_full_relay_says_so_and_has_room_again(
    start: Start, eventually: Eventually, flags: list[str], room: int, status: int, code: str
) -> None:
    relay = start("--no-diagnostics", *flags, announced=2)
    with ExitStack() as clients:
        for _ in range(room):
            clients.enter_context(relay.open("sim:events=inf"))
        eventually(lambda: relay.stats()["started"] == room)
        answer = relay.chat("sim:events=2,pace=0")
        assert answer.status == status
        assert answer.error["code"] == code
        assert answer.headers["retry-after"] == "1"
        assert relay.stats()["started"] == room
    eventually(lambda: relay.chat("sim:events=2,pace=0").status == 200)


def test_memory_that_is_spent_lets_nobody_in(start: Start) -> None:
    relay = start("--no-diagnostics", "--memory-limit-bytes", "1000000", announced=2)
    for answer in (relay.chat("sim:"), relay.chat("sim:", stream=False), relay.get("/stream?prompt=hi")):
        assert answer.status == 503
        assert "memory" in answer.error["message"]
    assert relay.get("/healthz").status == 200


def test_a_caller_that_asks_too_often_is_told_when_to_come_again(start: Start) -> None:
    relay = start("--no-diagnostics", "--key-rate", "0.01", "--rate-burst", "2", announced=2)
    statuses = [relay.chat("sim:events=1,pace=0", stream=stream).status for stream in (True, False)]
    assert statuses == [200, 200]
    answer = relay.chat("sim:")
    assert answer.status == 429
    assert answer.error["type"] == "rate_limit_error"
    assert 1 <= int(answer.headers["retry-after"]) <= 100


def test_answers_tell_where_their_caller_stands(start: Start) -> None:
    relay = start("--no-diagnostics", "--key-rate", "0.01", "--rate-burst", "4", "--key-max-streams", "3", announced=2)
    policy = '"requests";q=4;w=400, "streams";q=3;qu="concurrent-requests"'
    answers = [
        relay.chat("sim:events=1,pace=0"),
        relay.chat("sim:events=1,pace=0", stream=False),
        relay.get("/stream?prompt=hi&model=sim:events=1"),
        relay.ask("POST", "/v1/chat/completions", b"{}", {}),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 400]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {policy}
    # A stream has its place while its answer begins; whoever is refused before has none.
    left = [answer.headers["ratelimit"].split(", ") for answer in answers]
    assert [requests.split(";")[1] for requests, _ in left] == ["r=3", "r=2", "r=1", "r=0"]
    assert [left[0][1], left[2][1], left[3][1]] == ['"streams";r=2', '"streams";r=2', '"streams";r=3']
    refused = relay.chat("sim:")
    assert refused.status == 429
    requests, _ = refused.headers["ratelimit"].split(", ")
    name, remaining, reset = requests.split(";")
    assert (name, remaining) == ('"requests"', "r=0")
    assert 1 <= int(reset.removeprefix("t=")) <= int(refused.headers["retry-after"]) <= 100
    assert not {"ratelimit", "ratelimit-policy"} & relay.get("/healthz").headers.keys()


def test_a_relay_without_limits_for_callers_tells_of_none(start: Start) -> None:
    relay = start("--no-diagnostics", announced=2)
    answer = relay.chat("sim:events=1,pace=0")
    assert (answer.status, "ratelimit" in answer.headers) == (200, False)
