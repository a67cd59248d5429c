"""Where callers stand with their limits, in the fields that tell them."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.admission import gate as limits
from relay.admission.gate import Admission, Gate
from relay.admission.rate_limit_fields import RateLimitFields
from relay.admission.sharing import Leased, Taken
from relay.admission.standing import Standing, header_fields, quota_of
from relay.errors import OverloadedError, TooManyError

# A list of RFC 9651 whose members are strings with parameters: integers, strings.
ITEM = r'"[a-z]+"(;[a-z]+=(\d+|"[a-z-]+"))*'
LIST = re.compile(rf"{ITEM}(, {ITEM})*")


def make(shared: Any = None, **changes: Any) -> tuple[Gate, list[float]]:
    """A gate, and its clock."""
    now = [0.0]
    values = {"max_streams": 0, "budget_bytes": 0, "stream_bytes": 100, **changes}
    return Gate(
        Admission(**values), reject=lambda _: None, memory=lambda: None, shared=shared, clock=lambda: now[0]
    ), now


def told(gate: Gate, key: str = "a") -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in header_fields(gate.standing(key))}


def test_a_bucket_tells_what_is_left_and_when_there_is_more() -> None:
    gate, now = make(key_rate=0.5, burst=4)
    assert told(gate) == {"ratelimit-policy": '"requests";q=4;w=8', "ratelimit": '"requests";r=4'}
    gate.request("a")
    assert told(gate)["ratelimit"] == '"requests";r=3;t=2'
    now[0] = 1.5
    assert told(gate)["ratelimit"] == '"requests";r=3;t=1'
    for _ in range(3):
        gate.request("a")
    with pytest.raises(TooManyError) as refused:
        gate.request("a")
    assert told(gate)["ratelimit"] == '"requests";r=0;t=1'
    assert refused.value.headers["retry-after"] == "1"  # never before `t`
    assert told(gate, "b")["ratelimit"] == '"requests";r=4'


def test_places_are_told_and_others_use_is_not() -> None:
    gate, _ = make(key_max_streams=2, rate=0.001, burst=3)
    with gate.stream("a"), gate.stream("b"):
        assert told(gate) == {
            "ratelimit-policy": '"streams";q=2;qu="concurrent-requests"',
            "ratelimit": '"streams";r=1',
        }
    for _ in range(3):
        gate.request("b")
    # Now it is refused for the rate of all, and learns why.
    assert told(gate)["ratelimit"] == '"streams";r=2, "all";r=0;t=1000'
    assert told(gate)["ratelimit-policy"].endswith(', "all";q=3;w=3000')


def test_a_gate_without_such_limits_tells_nothing() -> None:
    gate, _ = make(max_streams=5)
    assert told(gate) == {}


@given(st.floats(0.001, 1000), st.integers(1, 100), st.lists(st.floats(0, 3), max_size=50))
def test_any_use_makes_fields_that_can_be_read(rate: float, burst: int, gaps: list[float]) -> None:
    gate, now = make(key_rate=rate, burst=burst, key_max_streams=3)
    for gap in gaps:
        now[0] += gap
        refused: TooManyError | None = None
        try:
            gate.request("a")
        except TooManyError as error:
            refused = error
        fields = told(gate)
        assert all(LIST.fullmatch(value) for value in fields.values()), fields
        (requests, _) = gate.standing("a")
        assert 0 <= requests.remaining <= burst
        if refused is not None:
            assert requests.remaining == 0
            assert requests.reset == int(refused.headers["retry-after"])
        assert requests.reset is None or 1 <= requests.reset <= math.ceil(1 / rate)


@given(st.floats(0.0001, 10_000), st.integers(1, 10_000))
def test_a_quota_promises_no_more_than_the_bucket_lets_through(rate: float, burst: int) -> None:
    quota, window = quota_of(rate, burst)
    assert quota >= 1
    assert window >= 1
    assert quota <= max(burst, rate * window) + 1e-6
    assert quota / window <= rate * (1 + 1e-9)


def test_the_fields_stand_on_every_answer_but_those_of_the_page_and_the_probes() -> None:
    async def app(scope: Any, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"x", b"y")]})

    def answered(path: str) -> list[tuple[bytes, bytes]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        wrapped = RateLimitFields(app, lambda scope: [Standing(scope["caller"], 2, 1)])
        asyncio.run(wrapped({"type": "http", "path": path, "caller": "me"}, None, send))  # type: ignore[arg-type]
        return list(sent[0]["headers"])

    assert answered("/v1/models") == [(b"x", b"y"), (b"ratelimit-policy", b'"me";q=2'), (b"ratelimit", b'"me";r=1')]
    for path in ("/", "/healthz", "/readyz"):
        assert answered(path) == [(b"x", b"y")]


class Answers:
    """Shared limits that answer what they are told to; None: they are away."""

    def __init__(self) -> None:
        self.taken: Taken | None = None
        self.leased: Leased | None = None
        self.held: list[str] = []
        self.dropped: list[str] = []

    async def take(self, key: str) -> Taken | None:
        return self.taken

    async def lease(self, key: str, member: str) -> Leased | None:
        return self.leased

    def hold(self, key: str, member: str) -> None:
        self.held.append(member)

    def drop(self, key: str, member: str) -> None:
        self.dropped.append(member)


def test_shared_buckets_decide_and_the_gates_own_go_on_from_there() -> None:
    shared = Answers()
    gate, now = make(shared, key_rate=0.25, rate=100, burst=10)
    shared.taken = Taken(None, 7.0, 1.0)
    asyncio.run(gate.admit("a"))
    assert told(gate)["ratelimit"] == '"requests";r=1;t=4'
    shared.taken = Taken("key", 7.0, 0.5)
    with pytest.raises(TooManyError, match=r"0\.25 requests a second of this caller") as refused:
        asyncio.run(gate.admit("a"))
    assert refused.value.headers["retry-after"] == "2"
    shared.taken = Taken("all", 0.0, 0.5)
    with pytest.raises(TooManyError, match="100 requests a second; "):
        asyncio.run(gate.admit("a"))
    now[0] = 2.5
    shared.taken = None
    asyncio.run(gate.admit("a"))  # by the gate's own bucket, which has had 0.5 then and one more since
    with pytest.raises(TooManyError):
        asyncio.run(gate.admit("a"))


def test_shared_places_are_given_back_however_a_stream_ends() -> None:
    shared = Answers()
    gate, _ = make(shared, key_max_streams=2, max_streams=1)
    shared.leased = Leased(granted=True, elsewhere=1)
    with asyncio.run(gate.place("a")):
        assert told(gate)["ratelimit"] == '"streams";r=0'
        with pytest.raises(OverloadedError):  # the relay itself is full: a place elsewhere is not asked for
            asyncio.run(gate.place("a"))
    full = asyncio.run(gate.place("a"))
    with gate.stream("b"), pytest.raises(OverloadedError), full:
        pass
    assert len(shared.held) == 1
    assert len(set(shared.dropped)) == 2
    shared.leased = Leased(granted=False, elsewhere=2)
    with pytest.raises(TooManyError, match="2 streams of this caller are open"):
        asyncio.run(gate.place("a"))
    shared.leased = None  # away: the relay's own limit
    with asyncio.run(gate.place("a")):
        assert told(gate)["ratelimit"] == '"streams";r=1'
    assert set(shared.held) <= set(shared.dropped)


def test_the_table_of_what_is_elsewhere_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEYS", 5)
    shared = Answers()
    shared.leased = Leased(granted=False, elsewhere=3)
    gate, _ = make(shared, key_max_streams=3)
    for number in range(50):
        with pytest.raises(TooManyError):
            asyncio.run(gate.place(f"caller-{number}"))
    assert len(gate._elsewhere) == 5
