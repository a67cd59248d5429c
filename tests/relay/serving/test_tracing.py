"""Traces as a collector receives them: a real HTTP receiver that decodes what the relay exports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Served = Any
Start = Any
Eventually = Callable[[Callable[[], bool]], None]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector:
    """Receives OTLP over HTTP on a port of its own."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for of in request.resource_spans
            for by in of.scope_spans
            for span in by.spans
        ]

    def of_kind(self, kind: int) -> list[Span]:
        return [span for span in self.spans if span.kind == kind]

    def resource(self) -> dict[str, Any]:
        return attributes(self.requests[0].resource_spans[0].resource)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def attributes(holder: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [plain(item) for item in found.values] if kind == "array_value" else found

    return {pair.key: plain(pair.value) for pair in holder.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def shared(start_shared: Start, collector: Collector) -> Served:
    return start_shared(
        "--no-diagnostics", "--read-timeout-seconds", "0.5",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
    )  # fmt: skip


@pytest.fixture
def traced(shared: Served, collector: Collector) -> Served:
    """The traced relay; what earlier tests exported is forgotten, and each test waits for all of its own spans."""
    collector.requests.clear()
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
    (client,), (server,) = collector.of_kind(Span.SPAN_KIND_CLIENT), collector.of_kind(Span.SPAN_KIND_SERVER)
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
    }
    assert client.status.code == Status.STATUS_CODE_UNSET
    assert server.name == "POST /v1/chat/completions"
    assert attributes(server)["http.route"] == "/v1/chat/completions"
    assert attributes(server)["http.response.status_code"] == 200


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
    (client,), (server,) = collector.of_kind(Span.SPAN_KIND_CLIENT), collector.of_kind(Span.SPAN_KIND_SERVER)
    told = attributes(client)
    assert (client.name, server.name) == (f"{operation} sim:events=3,pace=0", f"POST {path}")
    assert told["gen_ai.response.finish_reasons"] == [reason]
    assert told["gen_ai.response.model"] == "sim:events=3,pace=0"
    assert told["gen_ai.usage.output_tokens"] == 3
    assert told["gen_ai.response.id"]


def test_failures_are_errors_and_a_client_that_left_is_not(
    traced: Served, collector: Collector, eventually: Eventually
) -> None:
    traced.chat("sim:pace=0,fault=disconnect@2")
    traced.chat("sim:pace=0,fault=stall@2")
    with traced.open("sim:events=inf,pace=100") as connection:
        assert connection.recv(100)
    eventually(lambda: len(collector.spans) == 6)
    found = {
        attributes(span)["highwater.stream.outcome"]: (span.status.code, attributes(span).get("error.type"))
        for span in collector.of_kind(Span.SPAN_KIND_CLIENT)
    }
    assert found == {
        "upstream_error": (Status.STATUS_CODE_ERROR, "upstream_unreachable"),
        "timeout": (Status.STATUS_CODE_ERROR, "upstream_timeout"),
        "client_disconnected": (Status.STATUS_CODE_UNSET, None),
    }


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
    (client,) = collector.of_kind(Span.SPAN_KIND_CLIENT)
    assert attributes(client)["highwater.stream.outcome"] == "client_disconnected"
    assert attributes(client)["gen_ai.request.stream"] is False


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
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"a-secret" not in sent
    assert b"healthz" not in sent
    assert len(sent) < 10_000


def test_what_was_not_sent_yet_is_sent_at_the_end(start: Start, collector: Collector) -> None:
    collector.requests.clear()
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.url + "/v1/traces", OTEL_SERVICE_NAME="mine",
        OTEL_BSP_SCHEDULE_DELAY="600000",
    )  # fmt: skip
    relay.chat("sim:events=1,pace=0", stream=False)
    assert relay.terminate() == 0
    assert len(collector.of_kind(Span.SPAN_KIND_CLIENT)) == 1
    assert collector.resource()["service.name"] == "mine"


def test_a_dead_collector_neither_holds_the_end_up_nor_fills_the_log(start: Start, free_port: int) -> None:
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port}", OTEL_BSP_SCHEDULE_DELAY="20",
    )  # fmt: skip
    for _ in range(5):
        relay.chat("sim:events=1,pace=0")
        time.sleep(0.05)
    began = time.monotonic()
    assert relay.terminate() == 0
    assert time.monotonic() - began < 8
    assert "Traceback" not in relay.log()
    assert len(relay.log().splitlines()) <= 3


def test_without_a_collector_a_callers_trace_goes_through(relay: Served) -> None:
    given = f"00-{TRACE}-{PARENT}-01"
    with relay.open("sim:events=1,pace=0", traceparent=given) as connection:
        while b"[DONE]" not in connection.recv(65536):
            pass
    assert relay.stats()["last_traceparent"] == given
    assert "opentelemetry" not in relay.log()
