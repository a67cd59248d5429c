"""A stream that has ended is freed at once: it leaves no reference cycle for the garbage collector, however it ended.

Objects in a reference cycle stay until a collection, which is due by the number of objects and not by their bytes: streams that
fail one after the other would hold megabytes meanwhile. The relay runs in this process, whose collector is switched off, and
the tests count the objects that a stream is made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator

import pytest
import uvloop

from relay.app import create_app
from relay.serving.listener import bind
from relay.serving.server import RelayServer
from relay.serving.simulation import SimulatorProcess
from relay.settings import load
from relay.upstream.wire.connection import UpstreamConnection

STREAMS = 4
# What a stream is made of, the errors of all others among it.
PACKAGES = ("relay.", "uvicorn.", "openai.", "httpx2.")

TOPIC = "a topic, instead of a model"
WHOLE = "not streaming, "
READS, LEAVES, STAYS = "reads to the end", "leaves in the middle", "stays and reads nothing"
ENDINGS = {
    "completed": ("sim:events=3,pace=0", READS),
    "left by its client": ("sim:events=inf,pace=100", LEAVES),
    "a subscriber who left": (TOPIC, LEAVES),
    "too slow a client": ("sim:events=inf,pace=0,size=60000", STAYS),
    "refused by the upstream": ("sim:fault=500", READS),
    "broken off": ("sim:pace=0,fault=disconnect@3", READS),
    "an event without an end": ("sim:pace=0,size=64000,fault=endless@3", READS),
    "a silent upstream": ("sim:pace=0,fault=stall@3", READS),
    "a whole answer": (WHOLE + "sim:events=3,pace=0", READS),
    "a whole answer, refused": (WHOLE + "sim:fault=500", READS),
    "a whole answer, broken off": (WHOLE + "sim:pace=0,fault=disconnect@3", READS),
    "a whole answer, silent": (WHOLE + "sim:pace=0,fault=stall@3", READS),
    "a whole answer, large": (WHOLE + "sim:events=300,size=1000,pace=0", READS),
    "a whole answer, large and not read": (WHOLE + "sim:events=3000,size=1000,pace=0", STAYS),
}

Address = tuple[str, int]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with SimulatorProcess() as simulator:
        yield simulator.url


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.usefixtures("collector_off")
def test_nothing_of_a_stream_waits_for_the_collector(upstream: str, ending: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_left_over(upstream, *ENDINGS[ending])) == {}


@pytest.mark.parametrize("model", ["sim:events=3,pace=0", WHOLE + "sim:events=3,pace=0"], ids=["stream", "answer"])
@pytest.mark.parametrize("why", ["refused", "no such name", "no TLS"])
@pytest.mark.usefixtures("collector_off")
def test_nor_does_what_asked_an_upstream_that_cannot_be_reached(upstream: str, why: str, model: str) -> None:
    """With a fallback that answers: the request outlives what went wrong before."""
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        first = {
            "refused": f"http://127.0.0.1:{refusing.getsockname()[1]}/v1",
            "no such name": "http://upstream.invalid/v1",
            "no TLS": upstream.replace("http:", "https:"),
        }[why]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(_left_over(first, model, READS, fallback_base_urls=upstream)) == {}


async def _left_over(upstream: str, model: str, client: str, **settings: str) -> dict[str, int]:
    async with _relay(upstream, **settings) as address:
        # The first one leaves what is kept on purpose: what was imported and cached.
        await _ask(address, model, client)
        await asyncio.sleep(0.1)
        gc.collect()
        before = _counted()
        await asyncio.gather(*(_ask(address, model, client) for _ in range(STREAMS)))
        until = time.monotonic() + 60
        while (left := _counted() - before) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return dict(left)


@contextlib.asynccontextmanager
async def _relay(upstream: str, **more: str) -> AsyncGenerator[Address, None]:
    settings = load(
        **more,
        upstream_base_url=upstream,
        upstream_retries=0,
        read_timeout_seconds=0.3,
        response_timeout_seconds=0.3,
        write_timeout_seconds=0.3,
        drain_seconds=0,
        breaker_failures=1000,
    )
    relay = create_app(settings, upstream)
    serving = asyncio.Event()
    server = RelayServer(relay, serving.set, lambda: None)
    with bind("127.0.0.1", 0, 32 * 1024) as listener:
        task = asyncio.create_task(server.serve([listener]))
        await serving.wait()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            await task


def _counted() -> Counter[str]:
    found: Counter[str] = Counter()
    everything = gc.get_objects()
    # The pool keeps these, with what reads their answers, for the next streams.
    pooled = [each for each in everything if type(each) is UpstreamConnection and each.usable]
    kept = {id(each) for connection in pooled for each in (connection, connection._answer)}
    for each in everything:
        kind = type(each)  # not isinstance, which asks an object what it is: some would answer by importing more
        if id(each) in kept:
            continue
        if issubclass(kind, BaseException) or str(kind.__module__).startswith(PACKAGES):
            found[kind.__name__] += 1
    return found


def _request(model: str) -> bytes:
    if model == TOPIC:
        return b"GET /v1/topics/news HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = json.dumps(
        {"model": model.removeprefix(WHOLE), "messages": [], "stream": not model.startswith(WHOLE)}
    ).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _ask(address: Address, model: str, client: str) -> None:
    reader, writer = await asyncio.open_connection(*address, limit=1024)
    writer.write(_request(model))
    try:
        if client == READS:
            while await reader.read(65536):
                pass
        elif client == LEAVES:
            await reader.readuntil(b"\n\n")
        else:
            await reader.read(1)
            await asyncio.sleep(0.7)
    finally:
        writer.transport.abort()
