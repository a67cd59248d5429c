"""The number of time series is bounded whatever callers send: ten thousand streams with model names of their own."""

from __future__ import annotations

import asyncio
import os
import random
import re
import string
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import INVALID_SPAN
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from diagnostics import instrument
from diagnostics.agent.ledger import MAX_ROUTES, OTHER_ROUTE
from diagnostics.agent.record import OUTCOMES
from diagnostics.monitor.captures.counts import CaptureCounts
from diagnostics.monitor.kernel.process import read_process
from diagnostics.monitor.web.exposition import exposition
from diagnostics.monitor.web.metric_rows import Scraped
from diagnostics.monitor.web.metrics import METRICS
from diagnostics.monitor.workers.targets import Snapshot
from relay.stream.ending import Ending
from relay.telemetry.metrics.genai import MAX_MODELS, OTHER, Operation, Recorder
from relay.telemetry.metrics.histograms import Histograms

STREAMS = 10_000
HOSTILE = string.printable + "äß€\u2028\ud800\x00"
OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def names() -> list[str]:
    chosen = random.Random(7)
    return ["".join(chosen.choices(HOSTILE, k=chosen.randrange(1, 60))) for _ in range(STREAMS)]


def text_of(ledger: Any) -> str:
    process = read_process(os.getpid())
    assert process is not None
    snapshot = Snapshot(
        worker="0", process=process, state="answering", reading={"ledger": ledger.to_json(), "loop_lag": lag()}
    )
    scraped = Scraped.of(
        snapshot,
        outlook=None,
        firings={},
        actions={},
        captures=CaptureCounts(),
        pushes={},
        children=None,
        verdict="load_only",
        restarts=0,
        oom_kills=0,
    )
    return exposition([scraped], OPENMETRICS)[0].decode()


def lag() -> dict[str, Any]:
    return {"bounds": [1.0], "counts": [0, 0], "sum": 0.0}


def labels_of(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line.split(" # ")[0]):
            found.setdefault(name, set()).add(value)
    return found


def test_paths_topics_and_headers_make_no_series(names: list[str]) -> None:
    async def topic(_: Request) -> StreamingResponse:
        async def events() -> Any:
            yield b"data: x\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/topics/{topic}", topic)])
    ledger = instrument(app)

    async def ask(path: str, header: str) -> None:
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": b"/", "query_string": b"", "scheme": "http",
            "root_path": "", "http_version": "1.1", "server": ("a", 1), "client": ("a", 1), "app": app,
            "headers": [(b"x-route", header.encode(errors="replace")), (b"traceparent", header.encode(errors="replace"))],
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_message: Any) -> None:
            pass

        await app(scope, receive, send)

    async def all_of_them() -> None:
        for name in names:
            await ask("/v1/topics/" + name.replace("/", "-"), name)

    asyncio.run(all_of_them())
    found = labels_of(text_of(ledger))
    assert ledger.to_json()["routes"]["/v1/topics/{topic}"]["closed"]["completed"] > STREAMS * 0.9
    assert found["route"] <= {"/v1/topics/{topic}", "(unrouted)"}
    assert found["outcome"] <= set(OUTCOMES)
    assert set(found) <= {"worker", "le", *(label for spec in METRICS for label in spec.labels)}


def test_routes_that_an_app_makes_up_are_capped(names: list[str]) -> None:
    ledger = instrument(lambda *_: None)
    for name in names:
        with ledger.stream(name) as stream:
            stream.sent(10, events=1)
    routes = labels_of(text_of(ledger))["route"]
    assert len(routes) <= MAX_ROUTES + 1
    assert OTHER_ROUTE in routes


def test_models_that_nobody_answers_for_make_no_series_and_others_are_capped(names: list[str]) -> None:
    reader = InMemoryMetricReader()
    histograms = Histograms("highwater.relay", {})
    recorder = Recorder(MeterProvider([reader], shutdown_on_exit=False), histograms)

    def series() -> int:
        data = reader.get_metrics_data()
        assert data is not None
        return sum(
            len(metric.data.data_points)
            for of in histograms.among(data).resource_metrics
            for by in of.scope_metrics
            for metric in by.metrics
        )

    def call(name: str, outcome: str, first_chunk: float | None) -> None:
        ending = Ending(
            outcome, error_type="x" if first_chunk is None else None, input_tokens=1, output_tokens=1, mean_gap=0.1
        )
        recorder.record(Operation("chat", name, ("a", 1)), ending, 1.0, first_chunk, INVALID_SPAN)

    names = names[: 20 * MAX_MODELS]
    for name in names:
        call(name, "upstream_error", None)
    assert series() <= 4 + 5
    for name in names:
        for outcome in ("completed", "client_disconnected"):
            call(name, outcome, 0.1)
    # A duration has two outcomes, tokens two kinds, the two others one series for each model; counters are five.
    assert series() <= (2 + 2 + 1 + 1 + 5) * (MAX_MODELS + 1) + 4 + 5
    assert OTHER == "(other)"
