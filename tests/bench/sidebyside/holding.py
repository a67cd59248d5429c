"""What streams cost that stay: idle ones, slow readers, clients that never read."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from .peers import Serving
from .processes import TRAFFIC_CORE, PeerFailedError, Started, kernel_bytes, rss_bytes, started
from .traffic import Traffic

# An event every ten seconds: open, and as good as silent.
IDLE_PACE = 0.1
# 20 MB of each slow stream, in events of 2 KiB.
SLOW_EVENTS, SLOW_SIZE = 10_000, 2_000
SLOW_BYTES_PER_SECOND = 16 * 1024
SLOW_CLIENTS = 100
# In this time a relay has taken from its upstream whatever it takes.
FILL_SECONDS = 8.0
PATIENCE_SECONDS = 60.0
KIB = 1024.0


def idle(serving: Serving, traffic: Traffic, streams: int) -> dict[str, float]:
    """KiB of RSS per open stream that is as good as silent."""
    before = rss_bytes(serving.pid)
    with held(serving, traffic, streams, pace=IDLE_PACE):
        return {"rss_kib": (rss_bytes(serving.pid) - before) / streams / KIB}


def slow(serving: Serving, traffic: Traffic, rate: int) -> dict[str, float]:
    """What a client adds that reads `rate` bytes a second of a stream that comes as fast as it is taken.

    rss_kib      of resident memory, above what an idle stream takes
    kernel_kib   in the kernel's buffers of both its sockets
    """
    before = rss_bytes(serving.pid)
    with held(serving, traffic, SLOW_CLIENTS, pace=IDLE_PACE):
        with_idle, kernel = rss_bytes(serving.pid), kernel_bytes(serving.pid)
        with held(serving, traffic, SLOW_CLIENTS, pace=0, rate=rate) as clients:
            time.sleep(FILL_SECONDS)
            # A peer that gave its slow clients up would look cheap.
            still = told(clients)["open"]
            more = rss_bytes(serving.pid) - with_idle - (with_idle - before)
            return {
                "rss_kib": more / SLOW_CLIENTS / KIB,
                "kernel_kib": (kernel_bytes(serving.pid) - kernel) / SLOW_CLIENTS / KIB,
                "still_open": still / SLOW_CLIENTS,
            }


@contextlib.contextmanager
def held(serving: Serving, traffic: Traffic, streams: int, *, pace: float, rate: int = -1) -> Iterator[Started]:
    """So many streams, open and settled."""
    events, size = (1000, 24) if pace else (SLOW_EVENTS, SLOW_SIZE)
    command = [
        traffic.program, "hold", "-url", serving.url, "-streams", str(streams), "-events", str(events), "-size", str(size),
        "-pace", str(pace), "-rate", str(rate), "-opening", str(max(1.0, streams / 400)),
    ]  # fmt: skip
    with started(command, TRAFFIC_CORE, stdin=True) as clients:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := told(clients))["open"] < streams:
            if time.monotonic() > deadline:
                raise PeerFailedError(
                    f"{serving.url} opened {found['open']} of {streams} streams in {PATIENCE_SECONDS:g} s"
                )
            time.sleep(0.1)
        time.sleep(1.0)
        yield clients


def told(clients: Started) -> dict[str, Any]:
    """How many streams the clients hold, and what they have read."""
    process = clients.process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found
