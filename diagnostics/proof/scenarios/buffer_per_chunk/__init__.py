"""A new buffer for every chunk, as large as the largest chunk may be.

The relay frames what comes from the upstream in a buffer of 256 KiB, because an event may be that large; most have a few
hundred bytes. The buffer lives until the next one takes its place, that is as long as the upstream is silent: each open
stream holds one, busy or not, and makes hundreds a second while it is busy. The fix borrows a segment from a pool for as
long as a chunk needs it, and the pool has as many segments as chunks are under way, not as streams are open.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Fast, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="buffer_per_chunk",
    claim=(
        "A buffer made for each chunk and sized for the largest costs every open stream that size, even while it waits. "
        "Borrowed from a pool for as long as a chunk is under way, buffers cost what flows, not what is open."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.UNBOUNDED, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=256, chunks_per_second=20),
        light=Mix(((Fast(), 4),)),
        mix=Mix(((Fast(), 24),)),
        seconds=1.0,
        transient_seconds=0.0,
    ),
    least={
        # A third of what a stream with a buffer of its own adds; one without adds some 40 KiB.
        Measure.LOAD: 96 * 1024,
        # A segment that the pool keeps is one for all streams, 11 KiB for each.
        Measure.REMAINS: 64 * 1024,
    },
    source="buffer_per_chunk/",
)
