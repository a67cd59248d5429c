"""The resident memory that an idle open stream costs the relay, with traces, metrics and logs on."""

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
# It takes 17 to 21 KiB, as the allocator's pages fall; how much it is, the benchmark tells (docs/performance.md). One that
# kept a read's buffer, or a second copy of what belongs to it, would be above this.
MOST_KIB = 40


@contextlib.contextmanager
def held(relay: Served, streams: int) -> Iterator[None]:
    """So many open streams, each of which has had its first event."""
    with contextlib.ExitStack() as connections:
        opened = [connections.enter_context(relay.open("sim:events=inf,pace=0.02")) for _ in range(streams)]
        for connection in opened:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        yield


def test_an_open_stream_keeps_no_buffer(start: Start, collector: Collector) -> None:
    relay = start(
        "--no-diagnostics", announced=2,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, RELAY_MAX_STREAMS="0", RELAY_BUDGET_BYTES="0",
    )  # fmt: skip
    with held(relay, OTHERS):
        before = resident_kib(relay.process.pid)
        with held(relay, STREAMS):
            each = (resident_kib(relay.process.pid) - before) / STREAMS
    assert 0 < each <= MOST_KIB


def resident_kib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 1024
