"""Metrics and logs as a Collector receives them; and no prompt, completion, header or key in any signal."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from relay.admission.keys import hash_of
from relay.telemetry.metrics.genai import BUCKETS, DURATIONS, REQUESTS
from relay.telemetry.names import METRICS
from tests.otlp import Collector, attributes

Served = Any
Start = Any
Eventually = Callable[[Callable[[], bool]], None]

QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
DURATION, FIRST_CHUNK, PER_CHUNK, TOKENS = (
    METRICS[name] for name in ("duration", "first_chunk", "per_chunk", "tokens")
)


def points(collector: Collector, name: str) -> list[Any]:
    return list(collector.metrics[name].histogram.data_points)


def test_the_genai_metrics_say_what_calls_took_and_cost(
    start: Start, collector: Collector, eventually: Eventually
) -> None:
    relay = start(
        "--no-diagnostics", "--read-timeout-seconds", "0.4",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **QUICK,
    )  # fmt: skip
    good = "sim:events=10,pace=100,first=0.1"
    relay.chat(good, stream_options={"include_usage": True})
    relay.chat(good, stream=False)
    relay.chat("sim:pace=0,fault=stall@2")
    with relay.open("sim:events=inf,pace=100") as connection:
        assert connection.recv(100)
    eventually(lambda: DURATION in collector.metrics and len(points(collector, DURATION)) == 3)

    # One series for each model and outcome; the one that failed has its error's type.
    found = {
        (attributes(point)["gen_ai.request.model"], attributes(point)["highwater.stream.outcome"]): point
        for point in points(collector, DURATION)
    }
    assert {model for model, _ in found} == {good, "sim:pace=0,fault=stall@2", "sim:events=inf,pace=100"}
    both = found[good, "completed"]
    assert (both.count, tuple(both.explicit_bounds)) == (2, DURATIONS)
    assert 2 * 0.1 < both.sum < 5
    assert attributes(found["sim:pace=0,fault=stall@2", "timeout"])["error.type"] == "upstream_timeout"
    assert "error.type" not in attributes(found["sim:events=inf,pace=100", "client_disconnected"])

    used = {attributes(point)["gen_ai.token.type"]: point for point in points(collector, TOKENS)}
    assert used["output"].sum == 2 * 10
    assert used["input"].count == 2
    (gaps,) = [p for p in points(collector, PER_CHUNK) if attributes(p)["gen_ai.request.model"] == good]
    assert gaps.count == 1  # of the stream; an answer that does not stream has no gaps
    assert 0.005 < gaps.sum < 0.05
    (first,) = [p for p in points(collector, FIRST_CHUNK) if attributes(p)["gen_ai.request.model"] == good]
    assert 0.1 <= first.sum < 2
    for name, boundaries in BUCKETS.items():
        for point in points(collector, METRICS[name]):
            assert tuple(point.explicit_bounds) == boundaries
    # HTTP's own: a stream is measured to its last byte, and nothing is being served now.
    assert REQUESTS[-1] == 3600
    requests = points(collector, METRICS["http_duration"])
    assert sum(point.count for point in requests) == 4
    assert sum(point.sum for point in requests) > 2 * 0.1
    for point in requests:
        assert attributes(point)["http.route"] == "/v1/chat/completions"
        assert attributes(point)["http.response.status_code"] == 200
    assert {attributes(point).get("error.type") for point in requests} == {None, "upstream_timeout"}
    active = collector.metrics[METRICS["http_active"]].sum.data_points
    assert [point.as_int for point in active] == [0]


def test_metrics_can_be_switched_off_alone(start: Start, collector: Collector) -> None:
    relay = start(
        "--no-diagnostics",
        announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_METRICS_EXPORTER="none", OTEL_TRACES_EXPORTER="none",
    )  # fmt: skip
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    with relay.open("sim:events=1,pace=0", traceparent=given) as connection:
        while b"[DONE]" not in connection.recv(65536):
            pass
    assert relay.stats()["last_traceparent"] == given  # no span of ours stands between
    assert relay.terminate() == 0
    assert not collector.metrics
    assert not collector.spans
    (record,) = [record for record in collector.logs if record.event_name == "highwater.stream.ended"]
    assert (record.trace_id.hex(), record.span_id.hex()) == ("a" * 32, "b" * 16)


def test_a_stream_is_one_line_with_its_numbers_and_its_trace(
    start: Start, collector: Collector, eventually: Eventually
) -> None:
    relay = start(
        "--no-diagnostics", announced=2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **QUICK
    )  # fmt: skip
    relay.chat("sim:events=5,pace=0", stream_options={"include_usage": True})
    relay.chat("sim:pace=0,fault=disconnect@2")
    eventually(lambda: len(relay.endings()) == 2 and len(collector.logs) >= 2 and len(collector.clients) == 2)
    completed, failed = relay.endings()
    (span, _) = collector.clients
    assert (completed["trace_id"], completed["span_id"]) == (span.trace_id.hex(), span.span_id.hex())
    assert (completed["route"], completed["outcome"], completed["level"]) == (
        "/v1/chat/completions", "completed", "INFO",
    )  # fmt: skip
    assert completed["output_tokens"] == 5
    assert completed["events_in"] == completed["events_out"]
    assert 0 < completed["first_event_seconds"] <= completed["duration_seconds"]
    assert (failed["level"], failed["error_type"]) == ("WARNING", "upstream_unreachable")
    assert "error_type" not in completed

    # The same over OTLP, by the names of the spans.
    records = [record for record in collector.logs if record.event_name == "highwater.stream.ended"]
    assert [(record.severity_text, record.body.string_value) for record in records] == [
        ("INFO", "stream ended"), ("WARN", "stream ended"),
    ]  # fmt: skip
    assert (records[0].trace_id, records[0].span_id) == (span.trace_id, span.span_id)
    assert attributes(records[0])["highwater.stream.bytes_out"] == completed["bytes_out"]
    assert attributes(records[1])["error.type"] == "upstream_unreachable"


def _recorded(monitor: str) -> bool:
    try:
        return bool(_json(f"{monitor}/debug/memory/timeline"))
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 404:
                raise
        return False


def _json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return dict(json.load(answer))


def test_no_prompt_completion_header_or_key_is_in_any_signal(
    start: Start, collector: Collector, eventually: Eventually
) -> None:
    key = "a-secret-key-0123456789abcdef0123456789"
    relay = start(
        "--diagnostics", "127.0.0.1:0", "--log-level", "debug", "--upstream-retries", "0",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OPENAI_API_KEY="a-secret-upstream-key", **QUICK,
        RELAY_CLIENT_KEYS=f"me:generate+models+subscribe:{hash_of(key.encode())}",
        RELAY_URL_SECRETS="a-secret-of-signed-urls-0123456789",
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST=".*",
        OTEL_SEMCONV_STABILITY_OPT_IN="http/dup",  # with the old names, too, some of which are for a whole URL
    )  # fmt: skip
    monitor = relay.lines[1].split()[1].removesuffix("/debug/memory")
    headers = {"Authorization": f"Bearer {key}", "X-Canary": "a-secret-header", "Baggage": "user=a-secret-user"}
    eventually(lambda: _recorded(monitor))  # it has found the relay, and looked at it for the first time
    completions = []
    for model in (
        "sim:events=9,pace=0,size=64", "sim:events=9,pace=0,size=64,fault=malformed@3", "sim:fault=500", "sim:fault=429",
        "sim:size=64,pace=0,fault=disconnect@4", "sim:nonsense=a-secret-model",
    ):  # fmt: skip
        messages = [{"role": "user", "content": "a-secret-prompt"}]
        for stream in (True, False):
            asked = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
            completions.append(relay.ask("POST", "/v1/chat/completions", asked, headers))
    relay.get("/stream?prompt=a-secret-prompt&model=sim:events=2", **headers)
    relay.get("/stream?prompt=a-secret-prompt&model=", **headers)  # refused
    relay.get("/a-secret-path?q=a-secret-query", **headers)
    relay.get("/stream?prompt=a-secret-prompt", Authorization="Bearer a-secret-wrong-key")
    signed = json.loads(relay.ask("POST", "/v1/signed-urls", b'{"topic": "news"}', headers).body)["url"]
    with urllib.request.urlopen(relay.url + signed, timeout=60) as subscribed:
        assert subscribed.read(1)
    assert relay.get(signed.replace("news", "a-secret-topic")).error["code"] == "invalid_signature"
    (text,) = {
        json.loads(event)["choices"][0]["delta"]["content"]
        for event in completions[0].events[1:2]
    }  # fmt: skip
    assert len(text) > 40
    body = json.dumps({"model": "sim:events=inf,pace=20", "messages": messages, "stream": True}).encode()
    request = urllib.request.Request(relay.url + "/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=60) as open_stream:
        assert open_stream.read(10)
        shown = [
            urllib.request.urlopen(f"{monitor}{path}", timeout=60).read()
            for path in ("/debug/memory", "/debug/memory/streams", "/debug/memory/timeline", "/metrics")
        ]
        page = urllib.request.Request(f"{monitor}/debug/memory", headers={"Accept": "text/html"})
        shown.append(urllib.request.urlopen(page, timeout=60).read())
    eventually(lambda: len(relay.endings(outcome="client_disconnected")) == 2)
    assert relay.terminate() == 0
    assert all(collector.requests.values())  # each signal was sent
    everything = b"\n".join([*collector.bodies, *shown, relay.log().encode()])
    assert b"a-secret-model" in everything  # a model's name is told, and so this search finds what is there
    assert b"a-secret" not in everything.replace(b"a-secret-model", b"")
    assert text.encode() not in everything
    assert signed.rpartition("=")[2].encode() not in everything
    assert b"signature=" not in everything
