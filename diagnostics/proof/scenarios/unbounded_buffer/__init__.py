"""The queue between a fast upstream and a slow client has no bound.

A task reads the upstream as fast as it comes and puts each chunk into an `asyncio.Queue()`; the response takes them out at the
client's pace. With clients that keep up the queue is empty and every test is green. With one that reads slower than the
upstream writes, the difference stays in the service, for as long as the stream is open. The fix is one number: the queue
gets a `maxsize`, the reader waits for room, stops reading its socket, and TCP slows the upstream down.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Mix, Slow
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="unbounded_buffer",
    claim=(
        "An unbounded queue between upstream and client grows for as long as the client is slower than the upstream. "
        "Bounded, it makes the upstream wait, and an open stream costs the same after a minute as after an hour."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.UNBOUNDED, FIXED: Decision.BOUNDED},
    workload=Workload(
        # 800 KiB/s are offered for each client, 16 KiB/s go out.
        upstream=Upstream(chunk_bytes=4096, chunks_per_second=200),
        mix=Mix(((Slow(bytes_per_second=16 * 1024), 8),)),
        # The fixed app fills 0.6 MiB a stream: its queue, the HTTP client's buffer with one read from the socket, the server's.
        transient_seconds=1.3,
    ),
    least={
        # An eighth of what is offered. A queue that keeps everything gains about 4,200 bytes per chunk.
        Measure.GROWTH: 512,
        # A thirtieth of what was offered to each stream.
        Measure.REMAINS: 64 * 1024,
    },
    source="unbounded_buffer/",
)
