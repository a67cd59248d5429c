"""What an open stream that says nothing takes of the relay's resident memory, with traces, metrics and logs on."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.otlp import Collector

Served = Any
Start = Any
Eventually = Callable[..., None]

STREAMS = 500
# The first have the allocator take whole arenas and every module its caches.
WARM_UP = 200
# What it takes is 17 KiB; the SDK's two spans alone would be 5 more.
MOST_KIB = 20


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def held(relay: Served, streams: int) -> Iterator[None]:
    """So many open streams, each of which has had its first event."""
    with contextlib.ExitStack() as connections:
        opened = [connections.enter_context(relay.open("sim:events=inf,pace=0.02")) for _ in range(streams)]
        for connection in opened:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        yield


def test_an_open_stream_takes_less_than_twenty_kib(start: Start, collector: Collector, eventually: Eventually) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * STREAMS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * STREAMS, hard))
    relay = start(
        "--no-diagnostics", announced=2,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, RELAY_MAX_STREAMS="0", RELAY_BUDGET_BYTES="0",
    )  # fmt: skip
    with held(relay, WARM_UP):
        pass
    eventually(lambda: len(relay.endings()) >= WARM_UP, 30)
    before = resident_kib(relay.process.pid)
    with held(relay, STREAMS):
        each = (resident_kib(relay.process.pid) - before) / STREAMS
    # Less than any stream can be would say that memory of the warm-up was used again.
    assert 8 < each <= MOST_KIB


def resident_kib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024
