"""Every stream is bounded, and every client is let in.

The pump makes the upstream wait for the client, so a stream costs a known number of kilobytes. The number of streams is
whatever the clients make it: a relay that serves a hundred slow readers well ends with ten thousand of them, all bounded.
The fix counts, and answers 503 with Retry-After beyond the number that the memory was planned for.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Mix, Slow
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="no_admission",
    claim=(
        "A service that lets everybody in has a peak that follows the offered load, however well each stream is bounded. "
        "With a limit on open streams the peak is the same, whoever else asks."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.UNBOUNDED, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=4096, chunks_per_second=100),
        # As many as the fixed app lets in, and eight times as many.
        light=Mix(((Slow(bytes_per_second=16 * 1024), 4),)),
        mix=Mix(((Slow(bytes_per_second=16 * 1024), 32),)),
        seconds=1.2,
        transient_seconds=0.0,
        may_reject=True,
        least_events=0,
    ),
    least={
        # A slow reader costs the broken app some 200 KiB: the buffers of its HTTP client and of its server.
        Measure.LOAD: 32 * 1024,
        Measure.REMAINS: 16 * 1024,
    },
    source="no_admission/",
)
