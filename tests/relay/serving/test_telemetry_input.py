"""Wrong OTEL_* values and an unreachable Collector: a warning, and a relay that serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from relay.telemetry.names import MAX_ATTRIBUTE_CHARACTERS
from tests.otlp import Collector

Served = Any
Start = Any
TRACE = bytes.fromhex("ab" * 16)
EVERYTHING = {"/v1/traces", "/v1/metrics", "/v1/logs"}
Eventually = Callable[[Callable[[], bool]], None]


def warnings(relay: Served) -> list[str]:
    lines = [json.loads(line) for line in relay.log().splitlines()]
    return [line["message"] for line in lines if line["logger"] == "relay.telemetry"]


@pytest.mark.parametrize(
    ("variables", "complaints", "still_sent"),
    [
        ({"OTEL_PROPAGATORS": "b3,nonsense"}, ["no propagator ['b3', 'nonsense'] is installed"], EVERYTHING),
        (
            {
                "OTEL_BSP_SCHEDULE_DELAY": "-1",
                "OTEL_BLRP_MAX_QUEUE_SIZE": "many",
                "OTEL_METRIC_EXPORT_INTERVAL": "0",
                "OTEL_RESOURCE_ATTRIBUTES": ",,=,%%%",
                "OTEL_TRACES_SAMPLER": "nonsense",
                "OTEL_EXPORTER_OTLP_HEADERS": "a-secret-key",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
                "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": "(",
                "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": ".*",
            },
            ["traces are off", "metrics are off", "Header format invalid", "Invalid timeout", "'many'"],
            {"/v1/logs"},
        ),
    ],
)
def test_a_variable_that_cannot_be_used_costs_its_signal_only(
    start: Start, collector: Collector, variables: dict[str, str], complaints: list[str], still_sent: set[str]
) -> None:
    relay = start("--no-diagnostics", announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **variables)
    for _ in range(3):
        assert relay.chat("sim:events=1,pace=0").events[-1] == "[DONE]"
    assert relay.terminate() == 0
    told = warnings(relay)
    assert [complaint for complaint in complaints if sum(complaint in line for line in told) != 1] == []
    assert {path for path, requests in collector.requests.items() if requests} == still_sent
    assert "a-secret-key" not in relay.log()
    assert "Traceback" not in relay.log()


def test_a_collector_that_does_not_answer_costs_a_stream_nothing(start: Start, collector: Collector) -> None:
    collector.answers.clear()
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="10",
        OTEL_BLRP_SCHEDULE_DELAY="10", OTEL_METRIC_EXPORT_INTERVAL="10", OTEL_EXPORTER_OTLP_TIMEOUT="600",
    )  # fmt: skip
    for _ in range(20):
        assert relay.chat("sim:events=1,pace=0,first=0").events[-1] == "[DONE]"
    assert collector.bodies == []  # not one of them waited for an answer
    collector.answers.set()
    assert relay.terminate() == 0
    assert collector.clients


def test_what_a_collector_does_not_take_is_not_made_and_it_gets_what_comes_when_it_does(
    start: Start, collector: Collector, eventually: Eventually
) -> None:
    collector.answers.clear()
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="10",
        OTEL_BLRP_SCHEDULE_DELAY="10", OTEL_BSP_MAX_QUEUE_SIZE="6", OTEL_BLRP_MAX_QUEUE_SIZE="6",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2", OTEL_BLRP_MAX_EXPORT_BATCH_SIZE="2",
        OTEL_EXPORTER_OTLP_TIMEOUT="600",
    )  # fmt: skip
    for _ in range(40):
        relay.chat("sim:events=1,pace=0,first=0")
    lost = [line for line in warnings(relay) if "others are lost" in line]
    assert len(lost) == 2, warnings(relay)
    assert "all spans" in "".join(lost)
    assert "all log records" in "".join(lost)
    assert "Queue full" not in relay.log()  # the SDK's queue has never more than the room lets in
    told = len(collector.spans)
    collector.answers.set()
    eventually(lambda: len(collector.spans) >= told + 6)
    with relay.open("sim:events=1,pace=0", traceparent=f"00-{TRACE.hex()}-{'1' * 16}-01") as connection:
        while b"[DONE]" not in connection.recv(65536):
            pass
    eventually(lambda: [span.trace_id for span in collector.spans].count(TRACE) == 2)
    eventually(lambda: [record.trace_id for record in collector.logs].count(TRACE) == 1)
    assert relay.terminate() == 0


def test_hostile_names_and_headers_are_relayed_and_harm_nothing(
    start: Start, collector: Collector, eventually: Eventually
) -> None:
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_METRIC_EXPORT_INTERVAL="200", OTEL_BLRP_SCHEDULE_DELAY="50",
    )  # fmt: skip
    names = [
        "\ud800",
        "\x00",
        "a\nb",
        "x" * 100_000,
        "{{.}}",
        '"}',
        "\u2028",
        "gen_ai.request.model=x,y",
        "sk-" + "a" * 40,
    ]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: relay.chat(name, stream=False).status, names))
    assert set(answers) == {200, 400}  # some are no names to the upstream either
    for header in (
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"traceparent": "x" * 5000},
        {"traceparent": "ff-" + "a" * 32 + "-" + "b" * 16 + "-01", "tracestate": "=," * 1000},
        {"tracestate": "a=" + "b" * 5000, "baggage": "a=" + "b" * 5000},
        {"baggage": ",".join(f"k{number}=v" for number in range(500))},
    ):
        assert relay.ask("GET", "/stream?prompt=x&model=sim:events=1", None, header).status == 200
    asked = len(names) + 5
    eventually(lambda: len(collector.clients) == asked)
    eventually(lambda: "gen_ai.client.operation.duration" in collector.metrics)
    assert relay.terminate() == 0
    # No name or header made an export large: one of them, as metrics are sent again and again while the test runs.
    assert max(map(len, collector.bodies)) < 100_000
    assert not any(b"x" * (MAX_ATTRIBUTE_CHARACTERS + 1) in body for body in collector.bodies)
    assert len(warnings(relay)) == len(set(warnings(relay))) <= 4  # each complaint once
    assert "bbbb" not in relay.log()
    points = collector.metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in points) == asked
    assert max(len(pair.value.string_value) for point in points for pair in point.attributes) <= 128
