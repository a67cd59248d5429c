"""Every chunk is kept, for one log line at the end.

The answer is wanted whole in the log, so the relay adds each chunk to a string. Nothing shows in tests, whose answers are
short. A stream that runs for an hour holds an hour of text, and all open streams hold theirs together. The fix logs what
is known without keeping anything: how many bytes went through.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Fast, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="accumulated_response",
    claim=(
        "A relay that keeps every chunk for its log grows by all that flows through it, as long as the stream is open. "
        "Counting the bytes instead of keeping them costs a stream nothing, however long it runs."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.UNBOUNDED, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=4096, chunks_per_second=100),
        mix=Mix(((Fast(), 8),)),
        seconds=1.5,
        transient_seconds=0.5,
    ),
    least={
        # An eighth of what is offered. A string that keeps everything gains about 4,300 bytes per chunk.
        Measure.GROWTH: 512,
        Measure.REMAINS: 32 * 1024,
    },
    source="accumulated_response/",
)
