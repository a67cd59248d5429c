"""What an experiment puts beside somebody's relay: who takes its traces, and who publishes to its topics."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from diagnostics.errors import TargetError
from diagnostics.proof.scenario import Upstream
from diagnostics.proof.subjects.otlp import receiver
from diagnostics.proof.subjects.processes import free_port
from diagnostics.proof.subjects.publisher import publishing

FEED = Upstream(chunk_bytes=500, chunks_per_second=50)


def test_traces_are_taken_from_the_sdks_own_exporter() -> None:
    async def main() -> tuple[int, int]:
        async with receiver() as taken:
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{taken.url}/v1/traces")))

            def spans() -> None:
                for number in range(3):
                    provider.get_tracer("test").start_span(f"stream {number}").end()
                provider.shutdown()

            await asyncio.to_thread(spans)
            return taken.exports, taken.bytes

    exports, size = asyncio.run(main())
    assert exports == 3
    assert size > 300


async def published(seconds: float, status: int) -> Counter[str]:
    """What a topic got in `seconds`, from whom."""
    got: Counter[str] = Counter()
    peers = set()

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        got["events"] += 1
        got["bytes"] += len(body["text"])
        peers.add(request.transport and request.transport.get_extra_info("peername"))
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/topic", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with publishing(f"http://127.0.0.1:{port}/topic", FEED):
            await asyncio.sleep(seconds)
    finally:
        await runner.cleanup()
    got["connections"] = len(peers)
    return got


def test_events_are_published_in_the_feeds_size_at_its_pace_over_one_connection() -> None:
    got = asyncio.run(published(1.0, 201))
    # Not faster than told, however busy the machine; slower where it is.
    assert 5 <= got["events"] <= 52
    assert got["bytes"] == got["events"] * 500
    assert got["connections"] == 1


def test_a_topic_that_takes_no_event_fails_the_experiment() -> None:
    with pytest.raises(TargetError, match=r"answered POST .* with 404"):
        asyncio.run(published(0.3, 404))
