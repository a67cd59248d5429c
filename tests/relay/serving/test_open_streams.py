"""What an open stream that says nothing takes of the relay's resident memory, with traces, metrics and logs on."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.otlp import Collector

Served = Any
Start = Any

# Those that are measured, beside others that stay open: what these take, nobody has left behind.
STREAMS = 600
OTHERS = 200
# What it takes is 17 KiB; the SDK's two spans alone would be 5 more.
MOST_KIB = 20


@contextlib.contextmanager
def held(relay: Served, streams: int) -> Iterator[None]:
    """So many open streams, each of which has had its first event."""
    with contextlib.ExitStack() as connections:
        opened = [connections.enter_context(relay.open("sim:events=inf,pace=0.02")) for _ in range(streams)]
        for connection in opened:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        yield


def test_an_open_stream_takes_less_than_twenty_kib(start: Start, collector: Collector) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * STREAMS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * STREAMS, hard))
    relay = start(
        "--no-diagnostics", announced=2,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, RELAY_MAX_STREAMS="0", RELAY_BUDGET_BYTES="0",
    )  # fmt: skip
    with held(relay, OTHERS):
        before = resident_kib(relay.process.pid)
        with held(relay, STREAMS):
            each = (resident_kib(relay.process.pid) - before) / STREAMS
    assert 5 < each <= MOST_KIB


def resident_kib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024
