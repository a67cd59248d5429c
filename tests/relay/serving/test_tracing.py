"""Traces as a Collector receives them: a real HTTP receiver decodes the relay's export."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.otlp import Collector, attributes

Served = Any
Start = Any
Eventually = Callable[[Callable[[], bool]], None]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
PREFIX = "highwater.stream."


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with contextlib.closing(Collector()) as running:
        yield running


@pytest.fixture(scope="module")
def shared(start_shared: Start, collector: Collector) -> Served:
    return start_shared(
        "--no-diagnostics", "--read-timeout-seconds", "0.5",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
    )  # fmt: skip


@pytest.fixture
def traced(shared: Served, collector: Collector) -> Served:
    """The traced relay; what earlier tests exported is forgotten, and each test waits for all of its own spans."""
    collector.clear()
    return shared


def test_a_stream_is_one_client_span_below_its_server_span(
    traced: Served, collector: Collector, eventually: Eventually
) -> None:
    with traced.open("sim:events=100,pace=0", traceparent=f"00-{TRACE}-{PARENT}-01") as connection:
        received = b""
        while b"[DONE]" not in received:
            received += connection.recv(65536)
    eventually(lambda: len(collector.spans) >= 2)
    time.sleep(0.2)  # a span for each chunk would come now
    (client,), (server,) = collector.clients, collector.servers
    assert len(collector.spans) == 2
    assert client.trace_id.hex() == server.trace_id.hex() == TRACE
    assert server.parent_span_id.hex() == PARENT
    assert client.parent_span_id == server.span_id
    # The upstream's own spans belong below the client's.
    assert traced.stats()["last_traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert collector.resource()["service.name"] == "relay"

    assert client.name == "chat sim:events=100,pace=0"
    told = attributes(client)
    assert told.pop("gen_ai.response.time_to_first_chunk") > 0
    assert told.pop("gen_ai.response.id").startswith("chatcmpl-")
    measured = {name: told.pop(name) for name in list(told) if name.startswith(PREFIX) and name != PREFIX + "outcome"}
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "sim:events=100,pace=0",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "sim:events=100,pace=0",
        "gen_ai.response.finish_reasons": ["stop"],
        "server.address": "127.0.0.1",
        "server.port": int(traced.upstream.rsplit(":")[-1].removesuffix("/v1")),
        "highwater.stream.outcome": "completed",
        "http.route": "/v1/chat/completions",
    }
    sent = len(received.partition(b"\r\n\r\n")[2])
    assert measured[PREFIX + "bytes_in"] == measured[PREFIX + "bytes_out"] < sent  # which has the chunks' sizes, too
    assert measured[PREFIX + "events_in"] == measured[PREFIX + "events_out"] == 103
    assert 0 < measured[PREFIX + "buffer_high_water"] <= measured[PREFIX + "bytes_in"]
    assert 0 < measured[PREFIX + "time_to_first_event"] < measured[PREFIX + "duration"]
    assert measured[PREFIX + "blocked_seconds"] >= 0
    assert measured[PREFIX + "dropped_events"] == 0
    assert [event.name.removeprefix(PREFIX) for event in client.events] == ["first_chunk", "close"]
    assert client.status.code == Status.STATUS_CODE_UNSET
    assert server.name == "POST /v1/chat/completions"
    assert attributes(server)["http.route"] == "/v1/chat/completions"
    assert attributes(server)["http.response.status_code"] == 200
    assert attributes(server)["highwater.stream.outcome"] == "completed"
    assert not server.events


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "operation", "reason"),
    [
        ("/v1/chat/completions", "chat", "stop"),
        ("/v1/completions", "text_completion", "stop"),
        ("/v1/responses", "chat", "completed"),
    ],
)
def test_every_endpoint_tells_its_facts_in_both_forms(
    traced: Served, collector: Collector, eventually: Eventually, path: str, operation: str, reason: str, stream: bool
) -> None:
    body = {"model": "sim:events=3,pace=0", "messages": [], "stream": stream}
    if stream and path != "/v1/responses":
        body["stream_options"] = {"include_usage": True}
    assert traced.ask("POST", path, json.dumps(body).encode(), {}).status == 200
    eventually(lambda: len(collector.spans) >= 2)
    (client,), (server,) = collector.clients, collector.servers
    told = attributes(client)
    assert (client.name, server.name) == (f"{operation} sim:events=3,pace=0", f"POST {path}")
    assert told["gen_ai.response.finish_reasons"] == [reason]
    assert told["gen_ai.response.model"] == "sim:events=3,pace=0"
    assert told["gen_ai.usage.output_tokens"] == 3
    assert told["gen_ai.response.id"]


def test_failures_are_errors_and_a_client_that_left_is_not_on_both_spans(
    traced: Served, collector: Collector, eventually: Eventually
) -> None:
    traced.chat("sim:pace=0,fault=disconnect@2")
    traced.chat("sim:pace=0,fault=stall@2")
    with traced.open("sim:events=inf,pace=100") as connection:
        assert connection.recv(100)
    eventually(lambda: len(collector.spans) == 6)
    expected = {
        "upstream_error": (Status.STATUS_CODE_ERROR, "upstream_unreachable"),
        "timeout": (Status.STATUS_CODE_ERROR, "upstream_timeout"),
        "client_disconnected": (Status.STATUS_CODE_UNSET, None),
    }
    for spans in (collector.clients, collector.servers):
        assert {
            attributes(span)["highwater.stream.outcome"]: (span.status.code, attributes(span).get("error.type"))
            for span in spans
        } == expected
    # In all of them the response had begun: its status alone would call each a success.
    assert {attributes(span)["http.response.status_code"] for span in collector.servers} == {200}
    assert not any(span.status.message for span in collector.spans)


def test_an_upstreams_refusal_has_its_status_and_a_type(
    traced: Served, collector: Collector, eventually: Eventually
) -> None:
    assert traced.chat("sim:fault=429").status == 429
    eventually(lambda: len(collector.spans) == 2)
    (client,), (server,) = collector.clients, collector.servers
    told = attributes(client)
    assert (told["http.response.status_code"], told["error.type"]) == (429, "upstream_error")
    assert client.status.code == server.status.code == Status.STATUS_CODE_ERROR
    assert attributes(server)["http.response.status_code"] == 429


def stands_still(relay: Served, eventually: Eventually) -> None:
    """Return when the upstream has not been able to send anything for a while: what is on the way to the client is full."""
    sent: list[int] = []

    def unchanged() -> bool:
        sent.append(relay.stats()["bytes_sent"])
        time.sleep(0.1)  # forty events of the upstream's, if it could send them
        return len(sent) > 3 and len(set(sent[-3:])) == 1

    eventually(unchanged)


def test_a_client_that_does_not_read_is_paused_and_given_up(
    start: Start, collector: Collector, eventually: Eventually
) -> None:
    collector.clear()
    relay = start(
        "--no-diagnostics", "--write-timeout-seconds", "1.2", "--heartbeat-seconds", "0.1",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
    )  # fmt: skip
    with relay.open("sim:events=inf,pace=0,size=4000"):
        eventually(lambda: len(collector.spans) == 2)
    (client,), (server,) = collector.clients, collector.servers
    for span in (client, server):
        told = attributes(span)
        assert (told[PREFIX + "outcome"], told["error.type"]) == ("slow_client", "slow_client")
        assert span.status.code == Status.STATUS_CODE_UNSET
    assert "paused" in {event.name.removeprefix(PREFIX) for event in client.events}
    assert attributes(client)[PREFIX + "pauses"] >= 1
    assert attributes(client)[PREFIX + "blocked_seconds"] > 0.9

    # One that reads after a while has gone on, and a silent upstream is bridged; few of many events are kept.
    collector.clear()
    patient = start(
        "--no-diagnostics", "--write-timeout-seconds", "600", "--heartbeat-seconds", "0.05",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
    )  # fmt: skip
    with patient.open("sim:events=inf,pace=400,size=8000,first=0") as connection:
        for _ in range(2):
            stands_still(patient, eventually)
            # It keeps up with the upstream from here on, for a second at least, and the sweep sees that.
            until = patient.stats()["bytes_sent"] + 400 * 8000
            while patient.stats()["bytes_sent"] < until:
                assert connection.recv(1 << 20)
    patient.chat("sim:events=1,pace=0.6,first=0")
    eventually(lambda: len(collector.clients) == 2)
    slow, silent = collector.clients
    seen = [event.name.removeprefix(PREFIX) for event in slow.events]
    assert seen[:3] == ["first_chunk", "paused", "resumed"]  # and again, where the machine is busy
    assert seen[-1] == "close"
    assert len(seen) <= 2 + 2 * 8
    kept = [event.name for event in silent.events].count(PREFIX + "heartbeat")
    assert kept == 8 < attributes(silent)[PREFIX + "heartbeats"]


def test_what_is_not_let_in_is_rejected_and_why(start: Start, collector: Collector, eventually: Eventually) -> None:
    collector.clear()
    relay = start(
        "--no-diagnostics", "--max-streams", "1", "--drain-seconds", "0.2",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
    )  # fmt: skip
    with relay.open("sim:events=inf,pace=10") as connection:
        assert connection.recv(100)
        for _ in range(20):
            assert relay.chat("sim:events=1").status == 503
        eventually(lambda: len(collector.servers) == 20)
        told = attributes(collector.servers[0])
        assert (told[PREFIX + "outcome"], told["error.type"]) == ("rejected", "streams")
        assert not collector.clients
        assert relay.log().count("were not let in") == 1  # not once for each
        assert relay.terminate() == 0
    # The one that was open has been told of the end.
    for spans in (collector.clients, collector.servers):
        assert attributes(spans[-1])[PREFIX + "outcome"] == "shutdown"
        assert attributes(spans[-1])["error.type"] == "shutdown"


def test_a_fallback_and_an_open_breaker_are_events(
    start: Start, collector: Collector, eventually: Eventually, free_port: int
) -> None:
    upstream = start("--no-diagnostics", announced=2).upstream
    collector.clear()
    relay = start(
        "--no-diagnostics", "--upstream-retries", "0", "--breaker-failures", "1",
        announced=2, RELAY_UPSTREAM_BASE_URL=f"http://127.0.0.1:{free_port}/v1", RELAY_FALLBACK_BASE_URLS=upstream,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
    )  # fmt: skip
    for _ in range(2):
        assert relay.chat("sim:events=1,pace=0").status == 200
    eventually(lambda: len(collector.clients) == 2)
    seen = [[event.name.removeprefix(PREFIX) for event in span.events] for span in collector.clients]
    assert seen == [
        ["upstream_failed", "breaker_opened", "fallback", "first_chunk", "close"],
        ["upstream_skipped", "fallback", "first_chunk", "close"],
    ]
    assert attributes(collector.clients[0].events[0])["error.type"] == "upstream_unreachable"
    port = int(upstream.rsplit(":")[-1].removesuffix("/v1"))
    assert {attributes(span)["server.port"] for span in collector.clients} == {port}


def test_the_sampler_is_the_environments(start: Start, collector: Collector, eventually: Eventually) -> None:
    collector.clear()
    relay = start(
        "--diagnostics", "127.0.0.1:0",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0",
    )  # fmt: skip
    for sampled in ("00", "01", "00"):
        with relay.open("sim:events=1,pace=0", traceparent=f"00-{TRACE}-{PARENT}-{sampled}") as connection:
            while b"[DONE]" not in connection.recv(65536):
                pass
    relay.chat("sim:events=1,pace=0")
    eventually(lambda: len(relay.endings()) == 4)
    assert relay.terminate() == 0
    (client,), (server,) = collector.clients, collector.servers
    assert client.trace_id.hex() == server.trace_id.hex() == TRACE
    # Every line of the log has its trace, kept or not.
    assert [line["trace_id"] for line in relay.endings()][:3] == [TRACE] * 3


def test_a_client_that_leaves_stops_an_answer_that_does_not_stream(
    traced: Served, collector: Collector, eventually: Eventually
) -> None:
    before = traced.stats()["requests"]
    with traced.open("sim:first=60", stream=False):
        asked = 0  # each question is a request too

        def arrived() -> bool:
            nonlocal asked
            asked += 1
            return bool(traced.stats()["requests"] - before > asked)

        eventually(arrived)
    eventually(lambda: len(collector.spans) == 2)  # not after sixty seconds
    (client,) = collector.clients
    assert attributes(client)["highwater.stream.outcome"] == "client_disconnected"
    assert "gen_ai.request.stream" not in attributes(client)  # as the convention has it


def test_no_prompt_header_or_path_reaches_a_span_and_no_name_makes_it_large(
    traced: Served, collector: Collector, eventually: Eventually
) -> None:
    traced.get(
        "/stream?prompt=a-secret-prompt&model=sim:events=1", **{"User-Agent": "a-secret-agent", "X-Key": "a-secret"}
    )
    traced.get("/a-secret-path")
    traced.get("/healthz")
    traced.chat("\ud800" + "x" * 100_000)
    eventually(lambda: len(collector.spans) == 5)
    sent = b"".join(collector.bodies)
    assert b"a-secret" not in sent
    assert b"healthz" not in sent
    assert len(sent) < 10_000


def test_what_was_not_sent_yet_is_sent_at_the_end(start: Start, collector: Collector) -> None:
    collector.clear()
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.url + "/v1/traces", OTEL_SERVICE_NAME="mine",
        OTEL_BSP_SCHEDULE_DELAY="600000",
    )  # fmt: skip
    relay.chat("sim:events=1,pace=0", stream=False)
    assert relay.terminate() == 0
    assert len(collector.clients) == 1
    assert collector.resource()["service.name"] == "mine"


def test_a_dead_collector_neither_holds_the_end_up_nor_fills_the_log(start: Start, free_port: int) -> None:
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port}", OTEL_BSP_SCHEDULE_DELAY="20",
        OTEL_EXPORTER_OTLP_TIMEOUT="600",  # the SDK tries again for so long
    )  # fmt: skip
    for _ in range(5):
        relay.chat("sim:events=1,pace=0")
        time.sleep(0.05)
    assert relay.terminate() == 0
    assert "Traceback" not in relay.log()
    assert len(relay.log().splitlines()) - len(relay.endings()) <= 6  # a line for each signal and for the end


def test_without_a_collector_a_callers_trace_goes_through(relay: Served) -> None:
    given = f"00-{TRACE}-{PARENT}-01"
    with relay.open("sim:events=1,pace=0", traceparent=given) as connection:
        while b"[DONE]" not in connection.recv(65536):
            pass
    assert relay.stats()["last_traceparent"] == given
    assert "opentelemetry" not in relay.log()
