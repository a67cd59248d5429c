"""What an experiment puts beside somebody's relay: who takes its traces, and who publishes to its topics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

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


class Topic:
    """A real server that counts what is published to it, and from whom."""

    def __init__(self, status: int) -> None:
        self._status = status
        self.got: Counter[str] = Counter()
        self.connections: dict[object, asyncio.Transport] = {}

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.got["events"] += 1
        self.got["bytes"] += len(body["text"])
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self.connections[transport.get_extra_info("peername")] = transport
        return web.Response(status=self._status)


async def publish_until(enough: Callable[[Topic], bool], status: int) -> tuple[Topic, float]:
    """The topic once it has had enough, and the seconds that it took."""
    topic = Topic(status)
    app = web.Application()
    app.router.add_post("/topic", topic.take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        began = time.monotonic()
        async with publishing(f"http://127.0.0.1:{port}/topic", FEED):
            async with asyncio.timeout(60):
                while not enough(topic):
                    await asyncio.sleep(0.01)
            elapsed = time.monotonic() - began
    finally:
        await runner.cleanup()
    return topic, elapsed


def test_events_are_published_in_the_feeds_size_at_its_pace_over_one_connection() -> None:
    topic, seconds = asyncio.run(publish_until(lambda topic: topic.got["events"] >= 20, 201))
    # Not faster than told, however busy the machine; slower where it is.
    assert topic.got["events"] <= seconds * FEED.chunks_per_second + 2
    assert topic.got["bytes"] == topic.got["events"] * 500
    assert len(topic.connections) == 1


def test_a_topic_that_takes_no_event_fails_the_experiment() -> None:
    def left(topic: Topic) -> bool:
        return any(transport.is_closing() for transport in topic.connections.values())

    with pytest.raises(TargetError, match=r"answered POST .* with 404"):
        asyncio.run(publish_until(left, 404))
