"""A heartbeat for each connection, and nothing that stops it.

Proxies cut connections that are silent, so a task puts a comment into the stream's queue at regular intervals. The reader
is cancelled when the client leaves, the ticker is not: it goes on ticking into a queue that nobody reads until it is
full, then waits for ever, and keeps the queue with what was left in it. The fix cancels both.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Leaves, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="undying_ticker",
    claim=(
        "A heartbeat task that nobody stops outlives its connection and keeps the connection's queue. "
        "Cancelled with the stream, it leaves nothing."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=1024, chunks_per_second=100),
        mix=Mix(((Leaves(after_events=5), 16),), again=True),
        seconds=1.2,
        transient_seconds=0.0,
    ),
    # A task, its coroutine and an empty queue are about three kilobytes.
    least={Measure.REMAINS: 1024},
    source="undying_ticker/",
)
