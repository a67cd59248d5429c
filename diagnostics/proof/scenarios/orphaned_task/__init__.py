"""The task that reads the upstream outlives the client it reads for.

Reader and response are joined by a bounded queue, as they should be. When the client leaves, the response's generator is
closed, and nobody takes from the queue any more: the reader waits for room, for ever, with its upstream connection, its
queue and the HTTP client's buffers. The fix cancels the reader where the generator ends, whichever way it ends.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Leaves, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="orphaned_task",
    claim=(
        "A reader task that is not cancelled when its client leaves waits for ever for room in a queue that nobody empties. "
        "Cancelled with the stream, it takes its connection and its buffers with it."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        # Nobody stays to its end. Without an end what is left behind would fill for seconds after each round.
        upstream=Upstream(chunk_bytes=1024, chunks_per_second=100, events=100),
        mix=Mix(((Leaves(after_events=10), 8),), again=True),
        seconds=1.2,
        transient_seconds=0.0,
    ),
    # A tenth of what an orphan holds when its queue is full: 64 chunks of a kilobyte, and the connection.
    least={Measure.REMAINS: 8 * 1024},
    source="orphaned_task/",
)
