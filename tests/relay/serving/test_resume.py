"""Clients that are cut off and come back, to a relay that keeps its streams in memory."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import openai
import pytest

from relay.admission.keys import hash_of
from tests.resuming import ASKING, CHAT, LARGE, LARGE_EVENTS, RESPONSES, STREAM, Resumer, part, whole
from tests.scripted import DONE, END, HEAD, chunk, serving

Served = Any
Start = Any
Eventually = Callable[..., None]

KEPT = ["--resume", "memory", "--heartbeat-seconds", "0.2", "--upstream-retries", "0"]
# Room for three streams and what is kept, or for four streams.
ROOM = [
    *KEPT, "--stream-budget-bytes", "200000", "--budget-bytes", "800000",
    "--resume-bytes", "400000", "--resume-stream-bytes", "300000", "--drain-seconds", "0",
]  # fmt: skip
# Longer than any wait of a test.
GRACE_SECONDS = 600


@pytest.fixture(scope="module")
def keeping(start_shared: Start) -> Served:
    return start_shared("--no-diagnostics", *KEPT, "--resume-grace-seconds", str(GRACE_SECONDS), announced=2)


def requests(relay: Served) -> int:
    return int(relay.stats()["started"])


WAYS = [(route, by) for route in ASKING for by in ("header", "number")] + [(RESPONSES, "response")]


@pytest.mark.parametrize(("route", "by"), WAYS)
def test_a_client_that_is_cut_off_again_and_again_gets_every_event_once(keeping: Served, route: str, by: str) -> None:
    before = requests(keeping)
    client = Resumer(route, "sim:events=60,pace=200,size=50,first=0")
    for _ in range(3):
        # Past the first event, which tells a client of POST where it is; an EventSource is told before that.
        client.read(keeping.url, random.randrange(1 if route == STREAM and client.stream else 1200, 4000), by)
    assert client.read(keeping.url, None, by)
    kept = whole(keeping.url, f"/v1/streams/{client.stream}")
    assert client.events == kept.events
    assert client.numbers == list(range(1, len(kept.events) + 1))
    last = client.events[-1]
    assert last.data == "[DONE]" if route != RESPONSES else last.event == "response.completed"
    assert requests(keeping) == before + 1, "the answer was paid once"
    assert client.statuses == [200] * 4


def test_what_is_sent_again_is_what_was_sent_byte_by_byte(keeping: Served) -> None:
    first = whole(keeping.url, CHAT, "POST", Resumer(CHAT, "sim:events=30,pace=0,first=0")._body())
    stream = first.headers["x-relay-stream"]
    assert whole(keeping.url, f"/v1/streams/{stream}").raw == first.raw
    cut = first.raw.index(f"id: {stream}:7\n\n".encode())
    rest = first.raw[first.raw.index(b"\n\n", cut) + 2 :]
    assert whole(keeping.url, f"/v1/streams/{stream}?starting_after=7").raw == rest
    assert whole(keeping.url, "/stream?prompt=x", Last_Event_ID=f"{stream}:7").raw == rest
    assert whole(keeping.url, f"/stream?prompt=x&last_event_id={stream}:7").raw == rest


def test_two_clients_follow_one_stream_while_it_grows(keeping: Served) -> None:
    client = Resumer(CHAT, "sim:events=40,pace=100,first=0")
    client.read(keeping.url, 1000)
    with part(keeping.url, "GET", f"/v1/streams/{client.stream}") as (one, response):
        other = whole(keeping.url, f"/v1/streams/{client.stream}?starting_after=3")
        one.raw = response.read()
    assert [event.id for event in one.events] == [f"{client.stream}:{n}" for n in range(1, len(one.events) + 1)]
    assert one.events[-1].data == "[DONE]"
    assert other.events == one.events[3:]


def test_a_large_event_comes_whole_before_there_is_another_one(start: Start) -> None:
    """It is written in pieces, and a connection that has room for all of them asks for none."""
    relay = start("--no-diagnostics", *KEPT, announced=2)
    client = Resumer(CHAT, LARGE)
    with part(relay.url, "POST", CHAT, client._body()) as (begun, response):
        stream = begun.headers["x-relay-stream"]
        with part(relay.url, "GET", f"/v1/streams/{stream}?starting_after=0") as (got, rest):
            response.read1(1)
            while len(got.events) < LARGE_EVENTS:  # the upstream is silent then, and no end comes
                got.raw += rest.read1(65536)
    assert [event.id for event in got.events] == [f"{stream}:{n}" for n in range(1, LARGE_EVENTS + 1)]


def test_a_client_that_has_everything_is_told_to_stop(keeping: Served) -> None:
    client = Resumer(STREAM, "sim:events=3,pace=0,first=0")
    client.read(keeping.url, None)
    client.read(keeping.url, None)
    assert client.statuses == [200, 204]  # which makes an EventSource stop
    last = client.last_event_id.rpartition(":")[2]
    empty = whole(keeping.url, f"/v1/streams/{client.stream}?starting_after={last}")
    assert (empty.status, empty.raw) == (200, b"")


def test_an_event_source_that_has_seen_no_event_comes_back_to_its_stream(keeping: Served) -> None:
    before = requests(keeping)
    path = "/stream?prompt=hi&model=sim:events=3,pace=0,first=1.5"
    with part(keeping.url, "GET", path) as (got, response):
        while b":0\n\n" not in got.raw:
            got.raw += response.read1()
    match = re.match(rb"retry: 3000\nid: ([\w-]{20}:0)\n\n", got.raw)
    assert match, got.raw
    rest = whole(keeping.url, path, Last_Event_ID=match[1].decode())
    assert rest.events[-1].data == "[DONE]"
    assert requests(keeping) == before + 1


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/streams/AAAAAAAAAAAAAAAAAAAA", 404, "stream_not_found"),
        ("/v1/streams/short", 422, "invalid_parameter"),
        ("/v1/streams/AAAAAAAAAAAAAAAAAAAA?starting_after=-1", 422, "invalid_parameter"),
        ("/v1/streams/AAAAAAAAAAAAAAAAAAAA?starting_after=" + 20 * "9", 422, "invalid_parameter"),
        ("/v1/responses/resp_1?stream=true", 404, "stream_not_found"),
        ("/v1/responses/resp_1", 422, "invalid_parameter"),
        ("/v1/responses/resp_1?stream=true&starting_after=x", 422, "invalid_parameter"),
    ],
)
def test_what_cannot_be_resumed_is_refused(keeping: Served, path: str, status: int, code: str) -> None:
    refused = whole(keeping.url, path)
    assert (refused.status, refused.error["code"]) == (status, code)


@pytest.mark.parametrize(
    "foreign", ["1764000000000-0", "x", "AAAAAAAAAAAAAAAAAAAA:1", "AAAAAAAAAAAAAAAAAAAA:" + 20 * "9"]
)
@pytest.mark.parametrize("route", ASKING)
def test_a_foreign_last_event_id_asks_for_no_second_answer(keeping: Served, route: str, foreign: str) -> None:
    before = requests(keeping)
    refused = (
        whole(keeping.url, f"{STREAM}?prompt=x", Last_Event_ID=foreign)
        if route == STREAM
        else whole(keeping.url, route, "POST", Resumer(route, "m")._body(), Last_Event_ID=foreign)
    )
    assert (refused.status, refused.error["code"]) == (404, "stream_not_found")
    assert requests(keeping) == before


def test_an_event_from_the_future_and_one_of_another_stream_are_refused(keeping: Served) -> None:
    client = Resumer(CHAT, "sim:events=3,pace=0,first=0")
    client.read(keeping.url, None)
    future = whole(keeping.url, f"/v1/streams/{client.stream}?starting_after=99")
    assert (future.status, future.error["code"], future.error["param"]) == (400, "bad_request", "starting_after")
    assert "its last one is 6" in future.error["message"]
    other = whole(keeping.url, f"/v1/streams/{client.stream}", Last_Event_ID="AAAAAAAAAAAAAAAAAAAA:1")
    assert other.status == 400


def test_an_error_in_the_middle_is_the_last_event_for_those_who_come_back_too(keeping: Served) -> None:
    client = Resumer(CHAT, "sim:events=9,pace=0,first=0,fault=disconnect@4")
    client.read(keeping.url, None)
    assert json.loads(client.events[-1].data)["error"]["code"] == "upstream_unreachable"
    assert client.numbers == [1, 2, 3, 4, 5]
    assert whole(keeping.url, f"/v1/streams/{client.stream}?starting_after=4").events == client.events[4:]


def test_a_refusal_of_the_upstream_is_a_status_and_no_stream(keeping: Served) -> None:
    refused = whole(keeping.url, CHAT, "POST", Resumer(CHAT, "sim:fault=429")._body())
    assert refused.status == 429
    assert "x-relay-stream" not in refused.headers


def test_the_official_client_reads_streams_with_ids_and_gets_the_rest_by_its_own_means(keeping: Served) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{keeping.url}/v1", max_retries=0) as client:
        # Slower than the heartbeats, which its decoder must not take for events.
        chunks = list(
            client.chat.completions.create(
                model="sim:events=3,pace=2,first=0", messages=[{"role": "user", "content": "hi"}], stream=True
            )
        )
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
        seen: list[Any] = []
        with client.responses.create(model="sim:events=6,pace=20,first=0", input="hi", stream=True) as stream:
            for event in stream:
                seen.append(event)
                if len(seen) == 4:
                    break
        rest = client.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number)
        seen += rest
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert seen[-1].type == "response.completed"


@pytest.fixture(scope="module")
def impatient(start_shared: Start) -> Served:
    return start_shared(
        "--no-diagnostics", *KEPT, "--resume-grace-seconds", "1", "--write-timeout-seconds", "0.5", announced=2
    )


def test_the_upstream_goes_on_for_the_grace_time_and_no_longer(impatient: Served, eventually: Eventually) -> None:
    relay = impatient
    client = Resumer(CHAT, "sim:events=inf,pace=20,first=0")
    client.read(relay.url, 1000)
    left = time.monotonic()
    eventually(lambda: relay.stats()["open"] == 0)
    assert time.monotonic() - left > 0.9
    eventually(lambda: len(relay.endings(outcome="client_disconnected")) == 1)
    assert client.read(relay.url, None)
    assert client.numbers == list(range(1, len(client.events) + 1))
    assert json.loads(client.events[-1].data)["error"]["code"] == "stream_abandoned"
    # While somebody follows it, a stream goes on: for much longer than the grace time.
    client = Resumer(CHAT, "sim:events=40,pace=20,first=0")
    client.read(relay.url, 1000)
    assert client.read(relay.url, None)
    assert client.events[-1].data == "[DONE]"


def test_an_answer_of_which_nothing_was_seen_is_ended_at_once(keeping: Served, eventually: Eventually) -> None:
    began = time.monotonic()
    with keeping.open("sim:first=3600"):
        eventually(lambda: keeping.stats()["open"] == 1)
    eventually(lambda: keeping.stats()["open"] == 0)
    assert time.monotonic() - began < GRACE_SECONDS


def test_a_client_that_takes_nothing_is_cut_off_and_can_come_back(impatient: Served, eventually: Eventually) -> None:
    relay = impatient
    before = len(relay.endings(outcome="completed"))
    with relay.open("sim:events=300,pace=0,size=4000,first=0") as silent:
        silent.settimeout(60)
        head = silent.recv(400)
        stream = re.search(rb"x-relay-stream: ([\w-]{20})", head)
        assert stream, head
        eventually(lambda: len(relay.endings(outcome="completed")) == before + 1)
    rest = whole(relay.url, f"/v1/streams/{stream[1].decode()}")
    assert len(rest.events) == 303


@pytest.fixture(scope="module")
def narrow(start_shared: Start) -> Served:
    """Room for three streams and what is kept, or for four streams."""
    return start_shared("--no-diagnostics", *ROOM, "--resume-grace-seconds", "0.5", announced=2)


def test_a_slow_client_that_came_back_slows_the_upstream_and_loses_nothing(start: Start) -> None:
    """The upstream waits until the client is back, however long that takes: all that it says later is for a slow client."""
    count, said, back = 2000, 0, threading.Event()

    async def script(writer: asyncio.StreamWriter, _: int) -> None:
        nonlocal said
        writer.write(HEAD)
        for number in range(count):
            if number == 5:
                await asyncio.to_thread(back.wait)
            delta = {"index": 0, "delta": {"content": "x" * 4000}, "finish_reason": None}
            fact = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "m",
                "choices": [delta],
            }
            writer.write(chunk(b"data: %b\n\n" % json.dumps(fact).encode()))
            await writer.drain()
            said = number + 1
        writer.write(chunk(DONE) + END)

    with serving(script) as (upstream, _, _):
        flags = ("--no-diagnostics", *ROOM, "--resume-grace-seconds", "60")
        relay = start(*flags, announced=2, RELAY_UPSTREAM_BASE_URL=f"{upstream}/v1")
        try:
            client = Resumer(CHAT, "m")
            client.read(relay.url, 6000)
            with part(relay.url, "GET", f"/v1/streams/{client.stream}") as (got, response):
                assert got.status == 200
                back.set()
                got.raw = response.read(10_000)
                # The upstream is paused: what has been said of eight megabytes is what fits into buffers.
                before = -1
                while before != (before := said):
                    time.sleep(0.3)
                got.raw += response.read()
        finally:
            back.set()
    assert before < 0.95 * count
    assert [event.id for event in got.events] == [f"{client.stream}:{n}" for n in range(1, count + 2)]


def test_without_it_streams_have_no_ids_and_invite_nobody_to_come_back(start: Start) -> None:
    relay = start("--no-diagnostics", announced=2)
    answer = relay.get("/stream?prompt=hi&model=sim:events=3,pace=0,first=0")
    assert answer.body.startswith(b"data: ")
    assert b"retry:" not in answer.body
    assert b"\nid:" not in answer.body
    assert "x-relay-stream" not in answer.headers
    for path in ("/v1/streams/AAAAAAAAAAAAAAAAAAAA", "/v1/responses/resp_1?stream=true"):
        assert relay.get(path).error["code"] == "http_404"
    assert "resume" not in json.loads(relay.get("/readyz").body)
    # An id of somebody else's is none of its affairs, as it was.
    assert relay.ask("GET", "/stream?prompt=hi&model=sim:events=1", None, {"Last-Event-ID": "7"}).status == 200


def test_nobody_reads_the_stream_of_another_key(start: Start) -> None:
    keys = {name: f"{name}-{random.getrandbits(64)}" for name in ("mine", "theirs", "reader")}
    listed = ",".join(
        f"{name}:{'models' if name == 'reader' else 'generate'}:{hash_of(key.encode())}" for name, key in keys.items()
    )
    relay = start("--no-diagnostics", *KEPT, announced=2, RELAY_CLIENT_KEYS=listed)
    mine, theirs, reader = ({"Authorization": f"Bearer {keys[name]}"} for name in ("mine", "theirs", "reader"))
    client = Resumer(RESPONSES, "sim:events=9,pace=0,first=0", mine)
    client.read(relay.url, None)
    response = json.loads(client.events[0].data)["response"]["id"]
    paths = (f"/v1/streams/{client.stream}", f"/v1/responses/{response}?stream=true")
    for path in (*paths, f"/v1/streams/{client.stream}?starting_after=99"):
        refused = whole(relay.url, path, **theirs)
        assert (refused.status, refused.error["code"]) == (404, "stream_not_found")
        assert whole(relay.url, path, **reader).status == 403
        assert whole(relay.url, path).status == 401
    assert Resumer(RESPONSES, "m", {**theirs, "Last-Event-ID": client.last_event_id}).read(relay.url, None)
    for path in paths:
        assert whole(relay.url, path, **mine).events == client.events


def gauges(relay: Served) -> dict[str, float]:
    """The gauges of the relay's streams, those of routes added up."""
    with urllib.request.urlopen(relay.lines[1].split()[1].removesuffix("/debug/memory") + "/metrics") as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, value in re.findall(r"^(stream_(?:kept|open|buffered)\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def test_what_is_kept_has_a_bound_and_a_gauge_and_goes(start: Start, eventually: Eventually) -> None:
    bound = 300_000
    relay = start(
        "--diagnostics", "127.0.0.1:0", *KEPT, "--resume-bytes", str(bound), "--resume-stream-bytes", "100000",
        "--resume-seconds", "8",
    )  # fmt: skip
    clients = [Resumer(CHAT, "sim:events=100,pace=0,size=500,first=0") for _ in range(12)]
    for client in clients:
        assert client.read(relay.url, None)
    assert whole(relay.url, f"/v1/streams/{clients[-1].stream}").events == clients[-1].events
    found: list[float] = []
    eventually(lambda: found.append(gauges(relay).get("stream_kept_bytes", 0)) or found[-1] > 0)
    assert max(found) <= bound
    gone = whole(relay.url, f"/v1/streams/{clients[0].stream}")
    assert (gone.status, gone.error["code"]) == (410, "stream_expired")
    eventually(lambda: not any(gauges(relay).values()))
    assert whole(relay.url, f"/v1/streams/{clients[-1].stream}").status == 410


def test_kept_bytes_count_in_the_budget_of_all_streams(narrow: Served, eventually: Eventually) -> None:
    eventually(lambda: narrow.stats()["open"] == 0)
    assert Resumer(CHAT, "sim:events=400,pace=0,size=900,first=0").read(narrow.url, None)  # as much is kept as may be
    with narrow.open("sim:events=inf,pace=1,first=0") as first, narrow.open("sim:events=inf,pace=1,first=0") as second:
        first.recv(1)
        second.recv(1)
        refused = whole(narrow.url, CHAT, "POST", Resumer(CHAT, "sim:events=1")._body())
    assert (refused.status, refused.error["code"]) == (503, "overloaded")
