"""What a relay exports, held against the table of the GenAI semantic conventions (tests/semconv.json)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from relay.telemetry.names import METRICS
from tests.otlp import Collector, attributes
from tests.semconv import INFERENCE, TABLE, wrong_with_metric, wrong_with_span

Start = Any
Eventually = Callable[[Callable[[], bool]], None]

QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_LOGS_EXPORTER": "none"}
OF_1_41 = {METRICS[name] for name in ("duration", "first_chunk", "per_chunk", "tokens")}
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
ASKED = {
    "temperature": 1, "top_p": 0.5, "seed": 7, "n": 2, "max_tokens": 9, "stop": ["a-secret"], "frequency_penalty": "none",
    "response_format": {"type": "json_object"}, "reasoning": {"effort": "low"}, "previous_response_id": "resp_1",
    "conversation": {"id": "conv_1"}, "presence_penalty": -1,
}  # fmt: skip


@pytest.mark.parametrize("opted_in", ["", "http,gen_ai_latest_experimental"])
def test_spans_and_metrics_are_those_of_the_conventions(
    start: Start, collector: Collector, eventually: Eventually, opted_in: str
) -> None:
    relay = start(
        "--no-diagnostics", "--read-timeout-seconds", "0.5",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SEMCONV_STABILITY_OPT_IN=opted_in, **QUICK,
    )  # fmt: skip
    model = "sim:events=3,pace=0"
    for path in ENDPOINTS:
        for stream in (True, False):
            # The simulator takes what it knows of ASKED, and ignores the rest.
            body = {"model": model, "messages": [], "stream": stream, **ASKED}
            if stream and path != "/v1/responses":
                body["stream_options"] = {"include_usage": True}
            assert relay.ask("POST", path, json.dumps(body).encode(), {}).status == 200
    relay.chat("sim:pace=0,fault=stall@2")
    relay.chat("sim:fault=429")
    with relay.open("sim:events=inf,pace=100") as connection:
        assert connection.recv(100)
    calls = 2 * len(ENDPOINTS) + 3
    duration = METRICS["inference_duration"]
    eventually(
        lambda: (
            len(collector.clients) == calls
            and duration in collector.metrics
            and sum(point.count for point in collector.metrics[duration].histogram.data_points) == calls
        )
    )

    assert [(span.name, wrong) for span in collector.clients for wrong in wrong_with_span(span)] == []
    asked = attributes(next(span for span in collector.clients if attributes(span)["gen_ai.request.model"] == model))
    assert {name: value for name, value in asked.items() if name.startswith(("gen_ai.request.", "gen_ai.output"))} == {
        "gen_ai.request.model": model,
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.request.previous_response.id": "resp_1",
        "gen_ai.request.presence_penalty": -1.0,
        "gen_ai.output.type": "json",
    }  # neither what has another type than documented, nor a caller's text
    assert asked["gen_ai.conversation.id"] == "conv_1"
    # Reasons are as many as answers, and one whose end never came has an error's.
    reasons = [attributes(span).get("gen_ai.response.finish_reasons") for span in collector.clients]
    assert reasons.count(["error"]) == 2

    sent = {name for name in collector.metrics if name.startswith("gen_ai.")}
    assert sent - OF_1_41 == set(TABLE["Metric"])
    assert sent & OF_1_41 == (set() if opted_in else OF_1_41)
    assert [wrong for name in sent - OF_1_41 for wrong in wrong_with_metric(collector.metrics[name])] == []

    def total(name: str) -> int:
        return sum(point.as_int for point in collector.metrics[METRICS[name]].sum.data_points)

    assert total("used_output") == 2 * len(ENDPOINTS) * 3
    assert total("used_cached") == total("used_reasoning") == 0
    for name, told in (("inference_output", 2 * len(ENDPOINTS)), ("inference_first_chunk", len(ENDPOINTS) + 2)):
        points = collector.metrics[METRICS[name]].histogram.data_points
        assert sum(point.count for point in points) == told, name


def test_the_table_has_teeth() -> None:
    def span(**changed: Any) -> list[str]:
        told = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m", **changed,
        }  # fmt: skip
        made = Span(name="chat m", kind=Span.SPAN_KIND_CLIENT)
        for name, value in told.items():
            if value is not None:
                pair = made.attributes.add(key=name)
                setattr(
                    pair.value,
                    f"{type(value).__name__.replace('str', 'string').replace('float', 'double')}_value",
                    value,
                )
        return list(wrong_with_span(made))

    assert span() == []
    assert span(**{"gen_ai.provider.name": None}) == ["gen_ai.provider.name is missing"]
    assert span(**{"gen_ai.system": "openai"}) == ["gen_ai.system is unknown"]
    assert span(**{"gen_ai.usage.input_tokens": 3.0}) == ["gen_ai.usage.input_tokens is 3.0, no int"]
    assert span(**{"gen_ai.request.model": "other"}) == ["its name is 'chat m', not 'chat other'"]
    assert span(**{"server.address": "a"}) == ["server.port is missing beside server.address"]
    assert INFERENCE in TABLE["Span"]
